"""Sessions to resume: each once, the newest first, bounded."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import tracemalloc

import pytest

from pqtls import ClientConnection, ServerConnection, SessionReceived, TicketKeeper
from pqtls.provider import default_provider
from pqtls.sessions import SessionFacts
from pqtls.wire import Reader
from proxy import credential_files
from proxy.config import Endpoint
from proxy.identity import IdentityRule
from proxy.sessions import CAPACITY, PER_DESTINATION, SessionStore

ANYBODY = IdentityRule(frozenset(), frozenset())
US = b"our certificates"
NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)


def key(host: str = "10.0.0.1", rule: IdentityRule = ANYBODY, us: bytes = US):
    return Endpoint(host, 8080), rule, us


@pytest.fixture(scope="module")
def real_session(pki):
    """One session of a real handshake."""
    bundle = pki.bundle("api")
    tickets = TicketKeeper(default_provider(), per_handshake=1)
    settings = dataclasses.replace(bundle.settings, tickets=tickets)
    server = ServerConnection(credential_files.load(pki.files("api"), settings).server(True))
    client = ClientConnection(pki.bundle("web").client(True))
    for _ in range(4):
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    (session,) = [event.session for event in client.events() if isinstance(event, SessionReceived)]
    return session


@pytest.fixture
def session(real_session):
    """A factory of sessions that can be told apart by their tickets, received at NOW, good for an hour."""

    def make(number: int, lifetime: int = 3600):
        facts = dataclasses.replace(real_session.facts, valid_until=NOW + datetime.timedelta(days=1))
        return dataclasses.replace(
            real_session, facts=facts, ticket=bytes([number]), received_at=NOW, lifetime=lifetime
        )

    return make


def tickets(store: SessionStore, which, now=NOW) -> list[int]:
    taken = []
    while found := store.take(which, now):
        taken += [session.ticket[0] for session in found]
    return taken


def test_each_session_is_handed_out_once_and_the_newest_first(session):
    store = SessionStore()
    for number in range(3):
        store.keep(key(), session(number))
    assert tickets(store, key()) == [2, 1, 0]
    assert len(store) == 0


def test_nothing_is_known_of_a_destination_at_first():
    assert SessionStore().take(key(), NOW) == ()


@pytest.mark.parametrize(
    "other",
    [
        key("10.0.0.2"),
        key(rule=IdentityRule(frozenset(), frozenset({"spiffe://a/b"}))),
        key(us=b"our next ones"),
    ],
)
def test_another_destination_another_expectation_or_another_certificate_of_ours_gets_nothing(session, other):
    store = SessionStore()
    store.keep(key(), session(1))
    assert store.take(other, NOW) == ()


def test_a_session_past_its_time_is_passed_over(session):
    store = SessionStore()
    store.keep(key(), session(1))
    store.keep(key(), session(2, lifetime=10))
    assert tickets(store, key(), NOW + datetime.timedelta(seconds=11)) == [1]
    assert len(store) == 0


def test_of_one_destination_the_oldest_goes_first(session):
    store = SessionStore(per_destination=2)
    for number in range(4):
        store.keep(key(), session(number))
    assert len(store) == 2
    assert tickets(store, key()) == [3, 2]


def test_of_all_destinations_the_one_unused_for_longest_is_forgotten(session):
    store = SessionStore(capacity=2 * 700 + 3 * 601)  # two destinations, and three sessions with a ticket of one byte
    store.keep(key("a"), session(1))
    store.keep(key("b"), session(2))
    store.keep(key("b"), session(3))
    store.keep(key("a"), session(4))
    assert len(store) == 2
    assert tickets(store, key("b")) == []
    assert tickets(store, key("a")) == [4, 1]


def test_large_tickets_take_the_room_of_many_small_ones(session):
    store = SessionStore()
    for number in range(4096):
        large = dataclasses.replace(session(1), ticket=bytes(20_000))
        store.keep(key(f"host-{number}"), large)
    assert 100 < len(store) < 4 * 1024 * 1024 / 20_000
    for number in range(4096):
        store.take(key(f"host-{number}"), NOW)
    assert len(store) == 0
    for number in range(4096):
        store.keep(key(f"host-{number}"), session(1))
    assert 2048 < len(store) < 4096


@pytest.mark.parametrize("each", [1, PER_DESTINATION])
def test_it_holds_what_it_may_hold_in_bytes_however_many_destinations_there_are(real_session, each):
    encoded, size = real_session.facts.encode(), len(real_session.ticket)
    numbers = itertools.count()

    def another():
        """One as a handshake leaves it behind: nothing of it is shared with others."""
        number = next(numbers).to_bytes(8, "big")
        facts = SessionFacts.read(Reader(encoded, "a ticket"))
        return dataclasses.replace(real_session, facts=facts, ticket=number + bytes(size - 8), psk=number + bytes(40))

    tracemalloc.start()
    try:
        store = SessionStore()
        for host in range(8000 // each):
            for _ in range(each):
                store.keep((Endpoint(f"10.{host >> 8}.{host & 255}.1", 8080), (ANYBODY, None, None), US), another())
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) < 8000  # it is full
    assert 0.7 * CAPACITY < held <= 1.1 * CAPACITY
