"""What the tests with hostile input share: a recorded session, ways to damage it, and the property that must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

import pqtls
from pqtls.record import HEADER_SIZE, ContentType
from tests.support.recorded import Recording, record_handshake, split_records

# The place in a plaintext record of legacy_record_version's second byte.
IGNORED = 2
_ALERT_PLAIN = bytes((ContentType.ALERT, 3, 3, 0, 2, 2))
_ALERT_PROTECTED = bytes((ContentType.APPLICATION_DATA, 3, 3, 0, 2 + 1 + 16))


@cache
def recording(label: str = "session") -> Recording:
    return record_handshake(
        label, client={"alpn": (b"h2",), "server_name": "reviews.default.svc"}, server={"alpn": (b"h2",)}
    )


def demand_alert(connection: pqtls.Connection, error: pqtls.PeerError) -> None:
    """Demand that the error's alert is the last thing that goes out, if it has one, and that the connection is dead."""
    *_, last = split_records(connection.data_to_send()) or [b""]
    if error.alert is None or isinstance(error, pqtls.AlertReceived):
        assert last[:1] != bytes((ContentType.ALERT,))
        assert last[:HEADER_SIZE] != _ALERT_PROTECTED
        return
    assert last == _ALERT_PLAIN + bytes((error.alert,)) or last[:HEADER_SIZE] == _ALERT_PROTECTED
    assert not connection.has_data_to_send
    with pytest.raises(pqtls.MisuseError):
        connection.receive_data(b"more")


def refused(connection: pqtls.Connection, *pieces: bytes) -> pqtls.PeerError:
    """Play `pieces` and the end of the stream; demand that the handshake ends in a PeerError, and return it."""
    try:
        for piece in pieces:
            connection.receive_data(piece)
            assert not connection.handshake_complete
        connection.receive_eof()
    except pqtls.PeerError as error:
        assert not connection.handshake_complete
        assert connection.events() == []
        demand_alert(connection, error)
        return error
    raise AssertionError("the end of the stream was no error")


def bytewise(stream: bytes) -> Iterator[bytes]:
    return (stream[place : place + 1] for place in range(len(stream)))


def changed(stream: bytes, place: int, pattern: int) -> bytes:
    return stream[:place] + bytes((stream[place] ^ pattern,)) + stream[place + 1 :]


def refused_between(session: Recording, hello: bytes) -> pqtls.PeerError:
    """Play a changed ClientHello: the server refuses it, or the client refuses what the server makes of it."""
    server = session.server()
    try:
        server.receive_data(hello)
    except pqtls.PeerError as error:
        demand_alert(server, error)
        return error
    assert not server.handshake_complete
    answer = server.data_to_send()
    if not answer:
        with pytest.raises(pqtls.TruncatedStream) as truncated:
            server.receive_eof()
        return truncated.value
    return refused(session.client(), answer)


def flight_of(role: str, session: Recording) -> tuple[Callable[[], pqtls.Connection], bytes, tuple[bytes, ...]]:
    """For the victim `role`: how to make it ready, the protected stream that it expects, and the messages in it."""
    if role == "client":
        return (
            session.client_after_server_hello,
            session.server_flight[len(session.server_hello) :],
            session.server_messages,
        )
    return session.server_after_hello, session.client_flight, session.client_messages


def seal_for(role: str, session: Recording, *messages: bytes) -> bytes:
    return session.seal_for_client(*messages) if role == "client" else session.seal_for_server(*messages)
