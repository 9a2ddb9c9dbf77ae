"""Two engines and a hostile wire between them, in any order of events that hypothesis thinks of.

The engines draw fresh keys in every run, so what is under way after a flipped bit differs between runs: no choice of
hypothesis may depend on it, or it could not repeat a run.

Whatever the wire does to the bytes, four things hold: nothing but a PeerError ever comes out of an engine; what an
engine hands out as data is a prefix of what the other was given to send, in that order; a handshake completes only
where both saw the same peer (nobody is taken for anonymous who has a certificate, nor the other way round); and an
engine that failed is dead.
"""

from __future__ import annotations

import datetime
from functools import cache

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import pqtls
from pqtls.provider_cryptography import PROVIDER
from pqtls.tickets import TicketKeeper
from tests.support import pki
from tests.support.recorded import Recording, record_handshake, split_records

_ENDS = ("client", "server")
ends = st.sampled_from(_ENDS)


@cache
def _another_session() -> Recording:
    return record_handshake("another session")


def _other(end: str) -> str:
    return "server" if end == "client" else "client"


class HostileWire(RuleBasedStateMachine):
    """Each direction of the wire is a list of pieces that are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.tickets = TicketKeeper(PROVIDER)
        self.connections: dict[str, pqtls.Connection] = {}
        self.under_way: dict[str, list[bytes]] = {end: [] for end in _ENDS}
        self.seen: list[bytes] = []
        self.given: dict[str, bytearray] = {end: bytearray() for end in _ENDS}
        self.taken: dict[str, bytearray] = {end: bytearray() for end in _ENDS}
        self.dead: set[str] = set()
        self.closed: set[str] = set()
        self.tampered = False
        self.identities: dict[str, str] = {}
        self.right: dict[str, str] = {end: pki.identity(_other(end)) for end in _ENDS}

    @initialize(
        resume=st.booleans(),
        complete=st.booleans(),
        authentication=st.sampled_from(pqtls.ClientAuthentication),
        anonymous=st.booleans(),
    )
    def connect(
        self, resume: bool, complete: bool, authentication: pqtls.ClientAuthentication, anonymous: bool
    ) -> None:
        """Half of the runs begin after an honest handshake, half with none; half of either offer a session.

        Where the server serves clients without a certificate, half of them have none (and no session either).
        """
        sessions: tuple[pqtls.Session, ...] = ()
        server = pki.server_config(tickets=self.tickets, client_authentication=authentication)
        if anonymous and authentication is pqtls.ClientAuthentication.OPTIONAL:
            self.right["server"] = ""
            client = pki.client_config(credential=None)
        elif resume:
            first = pqtls.ClientConnection(pki.client_config())
            pki.pump(first, pqtls.ServerConnection(server))
            sessions = tuple(e.session for e in first.events() if isinstance(e, pqtls.SessionReceived))[:1]
            assert sessions
            client = pki.client_config(sessions=sessions)
        else:
            client = pki.client_config()
        self.connections = {
            "client": pqtls.ClientConnection(client),
            "server": pqtls.ServerConnection(server),
        }
        if complete:
            pki.pump(self.connections["client"], self.connections["server"])
        for end in _ENDS:
            self._collect(end)

    # -- what the ends do -------------------------------------------------------------------------------------------

    @rule(end=ends, data=st.binary(min_size=1, max_size=40))
    def send_data(self, end: str, data: bytes) -> None:
        connection = self.connections[end]
        if end in self.dead or end in self.closed or not connection.handshake_complete:
            with pytest.raises(pqtls.MisuseError):
                connection.send_data(data)
            return
        connection.send_data(data)
        self.given[end] += data
        self._collect(end)

    @rule(end=ends, request=st.booleans())
    def change_keys(self, end: str, request: bool) -> None:
        connection = self.connections[end]
        if end in self.dead or end in self.closed or not connection.handshake_complete:
            return
        connection.update_keys(request_peer=request)
        self._collect(end)

    @rule(end=ends)
    def close(self, end: str) -> None:
        if end not in self.dead and self.connections[end].handshake_complete:
            self.connections[end].send_close_notify()
            self.closed.add(end)
            self._collect(end)

    # -- what the wire does -----------------------------------------------------------------------------------------

    @rule(end=ends)
    def deliver_all(self, end: str) -> None:
        """Everything under way toward `end` arrives as one read."""
        pieces = b"".join(self.under_way[end])
        self.under_way[end].clear()
        self._receive(end, pieces)

    @rule(end=ends, cut=st.integers(1, 5000))
    def deliver_some(self, end: str, cut: int) -> None:
        if self.under_way[end]:
            first = self.under_way[end].pop(0)
            if first[cut:]:
                self.under_way[end].insert(0, first[cut:])
            self._receive(end, first[:cut])

    @rule(end=ends)
    def drop(self, end: str) -> None:
        if self.under_way[end]:
            self.under_way[end].pop(0)
            self.tampered = True

    @rule(end=ends)
    def duplicate(self, end: str) -> None:
        if self.under_way[end]:
            self.under_way[end].insert(0, self.under_way[end][0])
            self.tampered = True

    @rule(end=ends)
    def reorder(self, end: str) -> None:
        if len(self.under_way[end]) > 1:
            self.under_way[end].reverse()
            self.tampered = True

    @rule(end=ends, place=st.integers(0, 20000), bit=st.integers(0, 7))
    def flip(self, end: str, place: int, bit: int) -> None:
        if self.under_way[end]:
            piece = bytearray(self.under_way[end][0])
            piece[place % len(piece)] ^= 1 << bit
            self.under_way[end][0] = bytes(piece)
            self.tampered = True

    @rule(end=ends, length=st.integers(0, 20000))
    def truncate(self, end: str, length: int) -> None:
        if self.under_way[end]:
            piece = self.under_way[end].pop(0)
            if piece[: length % len(piece)]:
                self.under_way[end].insert(0, piece[: length % len(piece)])
            self.tampered = True

    @rule(end=ends, number=st.integers(0, 39))
    def splice_something_seen_before(self, end: str, number: int) -> None:
        """A record of either direction, also the end's own, comes once more."""
        if self.seen:
            latest = self.seen[-40:]
            self.under_way[end].insert(0, latest[number % len(latest)])
            self.tampered = True

    @rule(end=ends, number=st.integers(0, 30))
    def splice_another_session(self, end: str, number: int) -> None:
        session = _another_session()
        records = split_records(session.hello + session.server_flight + session.client_flight)
        self.under_way[end].insert(0, records[number % len(records)])
        self.tampered = True

    @rule(end=ends)
    def end_the_stream(self, end: str) -> None:
        self.under_way[end].clear()
        connection = self.connections[end]
        if end in self.dead or connection.peer_closed:
            connection.receive_eof()
            return
        with pytest.raises(pqtls.TruncatedStream):
            connection.receive_eof()
        self.dead.add(end)
        self.tampered = True

    # -- what must hold ---------------------------------------------------------------------------------------------

    def _receive(self, end: str, data: bytes) -> None:
        connection = self.connections[end]
        if end in self.dead:
            with pytest.raises(pqtls.MisuseError):
                connection.receive_data(data)
            return
        try:
            connection.receive_data(data)
        except pqtls.PeerError as error:
            heard = isinstance(error, pqtls.AlertReceived)
            assert self.tampered or heard, f"{end} refused an honest peer: {error}"
            self.dead.add(end)
        self._collect(end)

    def _collect(self, end: str) -> None:
        connection = self.connections[end]
        data = connection.data_to_send()
        if data:
            self.under_way[_other(end)] += split_records(data)
            self.seen += split_records(data)
        for event in connection.events():
            if isinstance(event, pqtls.HandshakeCompleted):
                assert end not in self.identities, "a handshake completes once"
                self.identities[end] = event.peer_identity
            elif isinstance(event, pqtls.ApplicationData):
                assert end in self.identities, "no data before the handshake"
                self.taken[end] += event.data

    @invariant()
    def data_arrives_as_it_was_sent_or_not_at_all(self) -> None:
        for end in _ENDS:
            assert self.given[_other(end)].startswith(self.taken[end])

    @invariant()
    def nobody_believes_anybody_else(self) -> None:
        for end, identity in self.identities.items():
            assert identity == self.right[end]

    @invariant()
    def whoever_completed_has_proofs(self) -> None:
        for end, connection in self.connections.items():
            assert connection.handshake_complete is (end in self.identities)

    def teardown(self) -> None:
        """An honest wire brings everything there."""
        if self.tampered or not self.connections:
            return
        for _ in range(8):
            for end in _ENDS:
                self.deliver_all(end)
        assert set(self.identities) == set(_ENDS)
        for end in _ENDS:
            assert self.taken[end] == self.given[_other(end)]
            assert self.connections[end].peer_closed is (_other(end) in self.closed)


def test_a_hostile_wire_between_two_engines_gets_nothing_out_of_them() -> None:
    run_state_machine_as_test(
        HostileWire,
        settings=settings(
            max_examples=600,
            stateful_step_count=25,
            deadline=datetime.timedelta(seconds=2),
            suppress_health_check=list(HealthCheck),
        ),
    )
