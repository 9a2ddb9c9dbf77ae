"""Resumption, exporters and key logs with OpenSSL at the other end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from OpenSSL import SSL

import pqtls
from pqtls.profiles import PROFILES
from pqtls.provider_cryptography import PROVIDER
from pqtls.tickets import TicketKeeper
from tests.support.openssl_peer import GROUPS, OpenSslPeer, openssl_context, shake_hands
from tests.support.pki import client_config, leaf, server_config

by_profile = pytest.mark.parametrize("profile", tuple(GROUPS))
by_role = pytest.mark.parametrize("role", ["client", "server"])


def _context(ours: str, profile: str, lines: list[bytes] | None = None) -> SSL.Context:
    """OpenSSL's context opposite to our role."""
    context = openssl_context(profile, leaf("server" if ours == "client" else "client"))
    # A server of OpenSSL's that demands certificates resumes only within a named context.
    context.set_session_id(b"mesh")
    if lines is not None:
        context.set_keylog_callback(lambda _connection, line: lines.append(line))
    return context


def _events(connection: pqtls.Connection) -> tuple[pqtls.HandshakeCompleted, list[pqtls.Session]]:
    completed, *others = connection.events()
    assert isinstance(completed, pqtls.HandshakeCompleted)
    return completed, [event.session for event in others if isinstance(event, pqtls.SessionReceived)]


def _both_ways(ours: pqtls.Connection, theirs: OpenSslPeer) -> None:
    theirs.write(b"from them")
    ours.receive_data(theirs.output())
    assert ours.events()[-1] == pqtls.ApplicationData(b"from them")
    ours.send_data(b"from us")
    theirs.feed(ours.data_to_send())
    assert theirs.read() == b"from us"


@by_profile
def test_our_client_resumes_with_a_server_of_openssl(profile: str) -> None:
    context = _context("client", profile)

    def connect(*sessions: pqtls.Session) -> tuple[pqtls.HandshakeCompleted, list[pqtls.Session], OpenSslPeer]:
        config = client_config(profiles=(PROFILES[profile],), sessions=sessions)
        ours, theirs = pqtls.ClientConnection(config), OpenSslPeer(context, is_client=False)
        shake_hands(ours, theirs)
        completed, received = _events(ours)
        _both_ways(ours, theirs)
        return completed, received, theirs

    full, received, theirs = connect()
    assert (full.resumed, theirs.resumed) == (False, False)
    assert len(received) >= 2
    again, more, theirs = connect(received[0])
    assert (again.resumed, theirs.resumed) == (True, True)
    assert again.peer_identity == full.peer_identity
    assert more, "a resumed connection brings tickets too"
    third, _, theirs = connect(more[0])
    assert (third.resumed, theirs.resumed) == (True, True)


@by_profile
def test_a_client_of_openssl_resumes_with_our_server_once_for_each_ticket(profile: str) -> None:
    context = _context("server", profile)
    config = server_config(profiles=(PROFILES[profile],), tickets=TicketKeeper(PROVIDER))

    def connect(session: SSL.Session | None) -> tuple[bool, bool, SSL.Session]:
        ours, theirs = pqtls.ServerConnection(config), OpenSslPeer(context, is_client=True)
        if session is not None:
            theirs.ssl.set_session(session)
        shake_hands(ours, theirs)
        completed, _ = _events(ours)
        _both_ways(ours, theirs)
        # OpenSSL takes the session of a connection that was freed without a close_notify for spoilt.
        theirs.close()
        kept = theirs.ssl.get_session()
        assert kept is not None
        return completed.resumed, theirs.resumed, kept

    ours, theirs, session = connect(None)
    assert (ours, theirs) == (False, False)
    ours, theirs, newer = connect(session)
    assert (ours, theirs) == (True, True)
    ours, theirs, _ = connect(session)
    assert (ours, theirs) == (False, False), "the ticket was used"
    ours, theirs, _ = connect(newer)
    assert (ours, theirs) == (True, True)


def test_a_session_resumes_after_openssl_asks_for_another_hello() -> None:
    both = replace(PROFILES["hybrid-l5"], groups=PROFILES["compat"].groups + PROFILES["hybrid-l5"].groups)
    context = _context("client", "hybrid-l5")

    def connect(*sessions: pqtls.Session) -> tuple[bool, bool, list[pqtls.Session], int]:
        ours = pqtls.ClientConnection(client_config(profiles=(both,), sessions=sessions))
        theirs = OpenSslPeer(context, is_client=False)
        wire = shake_hands(ours, theirs)
        completed, received = _events(ours)
        return completed.resumed, theirs.resumed, received, len(wire.from_us)

    resumed, reused, received, flights = connect()
    assert (resumed, reused, flights) == (False, False, 3)
    resumed, reused, _, flights = connect(received[0])
    assert (resumed, reused, flights) == (True, True, 3)


@by_role
@by_profile
def test_both_ends_export_the_same_keying_material(role: str, profile: str) -> None:
    context = _context(role, profile)
    ours: pqtls.Connection
    if role == "client":
        ours = pqtls.ClientConnection(client_config(profiles=(PROFILES[profile],)))
    else:
        ours = pqtls.ServerConnection(server_config(profiles=(PROFILES[profile],)))
    theirs = OpenSslPeer(context, is_client=role == "server")
    shake_hands(ours, theirs)
    for label, context_value, length in (
        ("EXPORTER-Channel-Binding", b"", 32),
        ("EXPORTER-test", b"some context", 48),
        ("EXPORTER-test", b"", 200),
        ("x", bytes(300), 1),
    ):
        expected = theirs.ssl.export_keying_material(label.encode(), length, context_value)
        assert ours.export_keying_material(label, context_value, length) == expected


@by_role
@by_profile
def test_our_key_log_is_openssls_of_the_same_connection_line_for_line(role: str, profile: str) -> None:
    mine: list[str] = []
    lines: list[bytes] = []
    context = _context(role, profile, lines)
    ours: pqtls.Connection
    if role == "client":
        ours = pqtls.ClientConnection(client_config(profiles=(PROFILES[profile],), key_log=mine.append))
    else:
        ours = pqtls.ServerConnection(server_config(profiles=(PROFILES[profile],), key_log=mine.append))
    shake_hands(ours, OpenSslPeer(context, is_client=role == "server"))
    assert sorted(mine) == sorted(line.decode() for line in lines)
    assert [line.split()[0] for line in mine] == [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
    ]


def test_a_resumed_connection_logs_its_keys_too() -> None:
    mine: list[str] = []
    lines: list[bytes] = []
    context = _context("client", "hybrid-l5", lines)

    def connect(*sessions: pqtls.Session) -> list[pqtls.Session]:
        config = client_config(profiles=(PROFILES["hybrid-l5"],), sessions=sessions, key_log=mine.append)
        ours = pqtls.ClientConnection(config)
        shake_hands(ours, OpenSslPeer(context, is_client=False))
        return _events(ours)[1]

    (session, *_) = connect()
    mine.clear()
    lines.clear()
    connect(session)
    assert sorted(mine) == sorted(line.decode() for line in lines)


@by_role
def test_a_small_record_size_limit_of_ours_does_not_bind_openssl_which_does_not_know_it(role: str) -> None:
    """RFC 8449 §4: the limit holds where both ends state one."""
    ours: pqtls.Connection
    if role == "client":
        ours = pqtls.ClientConnection(client_config(profiles=(PROFILES["hybrid-l5"],), record_size_limit=512))
    else:
        ours = pqtls.ServerConnection(server_config(profiles=(PROFILES["hybrid-l5"],), record_size_limit=512))
    theirs = OpenSslPeer(_context(role, "hybrid-l5"), is_client=role == "server")
    shake_hands(ours, theirs)
    assert ours.handshake_complete
    _events(ours)
    theirs.write(bytes(2**14))
    ours.receive_data(theirs.output())
    assert b"".join(event.data for event in ours.events() if isinstance(event, pqtls.ApplicationData)) == bytes(2**14)
