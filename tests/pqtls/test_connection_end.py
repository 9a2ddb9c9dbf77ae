"""How a connection ends: alerts either way, close_notify, the end of the stream."""

from __future__ import annotations

from typing import Any

import pytest

import pqtls
from pqtls.connection import Connection
from pqtls.errors import (
    Alert,
    AlertReceived,
    DecodeError,
    MisuseError,
    NotTls,
    PeerError,
    ProtocolViolation,
    TruncatedStream,
)
from pqtls.events import ApplicationData, PeerClosed
from pqtls.profiles import CNSA2
from pqtls.record import ContentType
from tests.support import pki
from tests.support.connections import CLIENT, data_of, fresh, scripted_client, scripted_server
from tests.support.scripted_peer import forged_chain, plain_record, refused

# -- alerts -----------------------------------------------------------------------------------------------------------


def _alert_received(connection: Connection, data: bytes) -> AlertReceived:
    with pytest.raises(AlertReceived) as caught:
        connection.receive_data(data)
    assert connection.data_to_send() == b"", "an alert is not answered"
    with pytest.raises(MisuseError, match="the connection is dead"):
        connection.receive_data(b"")
    return caught.value


def test_a_server_that_refuses_our_hello_is_heard_as_its_very_first_record() -> None:
    client = pqtls.ClientConnection(pki.client_config())
    server = pqtls.ServerConnection(pki.server_config(profiles=(CNSA2,)))
    with pytest.raises(pqtls.NegotiationRefused):
        server.receive_data(client.data_to_send())
    error = _alert_received(client, server.data_to_send())
    assert (error.alert, error.reason) == (Alert.HANDSHAKE_FAILURE, "alert_received")
    assert str(error) == "the peer refused us: handshake_failure"


@pytest.mark.parametrize("level", [1, 2, 0])
def test_an_alert_is_an_alert_whatever_its_level(level: int) -> None:
    server = scripted_server()
    error = _alert_received(server.connection, plain_record(ContentType.ALERT, bytes((level, 40))))
    assert error.alert is Alert.HANDSHAKE_FAILURE


def test_an_alert_of_an_unknown_number_is_said_with_its_number() -> None:
    server = scripted_server()
    error = _alert_received(server.connection, plain_record(ContentType.ALERT, b"\2\xc8"))
    assert (error.alert, str(error)) == (None, "the peer refused us: alert 200")


def test_a_client_that_could_not_use_our_share_is_heard_without_protection() -> None:
    client = scripted_client()
    client.start()
    wire = plain_record(ContentType.ALERT, b"\2\x2f")
    client.connection.receive_data(wire[:6])
    error = _alert_received(client.connection, wire[6:])
    assert error.alert is Alert.ILLEGAL_PARAMETER


def test_an_unprotected_alert_after_a_protected_record_is_not_believed() -> None:
    client = scripted_client()
    client.start()
    client.send(forged_chain(*CLIENT.chain))
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.connection.receive_data(plain_record(ContentType.ALERT, b"\2\x2f"))


def test_a_server_that_refuses_our_certificate_is_heard_after_our_handshake_is_complete() -> None:
    client, server = fresh()
    config = pki.server_config(trust=pki.trust(pki.root("Other Root")))
    server = pqtls.ServerConnection(config)
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    assert client.handshake_complete
    with pytest.raises(pqtls.CertificateRefused):
        server.receive_data(client.data_to_send())
    assert _alert_received(client, server.data_to_send()).alert is Alert.UNKNOWN_CA


@pytest.mark.parametrize(
    ("content", "error", "alert"),
    [
        (b"", ProtocolViolation, Alert.UNEXPECTED_MESSAGE),
        (b"\2", DecodeError, Alert.DECODE_ERROR),
        (b"\2\x28\2\x28", DecodeError, Alert.DECODE_ERROR),
    ],
)
def test_an_alert_that_is_none_is_refused(content: bytes, error: type[PeerError], alert: Alert) -> None:
    client = scripted_client(complete=True)
    with refused(client, error, alert):
        client.say(ContentType.ALERT, content)


def test_user_canceled_is_ignored_and_not_without_end() -> None:
    client = scripted_client()
    client.start()
    client.connection.receive_data(plain_record(ContentType.ALERT, b"\1\x5a"))
    client.send_alert(Alert.USER_CANCELED, level=1)
    with pytest.raises(AlertReceived, match="closed the connection during the handshake") as caught:
        client.send_alert(Alert.CLOSE_NOTIFY, level=1)
    assert caught.value.alert is Alert.CLOSE_NOTIFY
    client = scripted_client(complete=True)
    for _ in range(32):
        client.send_alert(Alert.USER_CANCELED, level=1)
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.send_alert(Alert.USER_CANCELED, level=1)


def test_a_fatal_fault_sends_its_alert_and_nothing_that_was_half_said() -> None:
    server = scripted_server()
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        server.send(server.hello.encode())
    assert [message.type for message in server.messages] == [1]


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closer", [0, 1])
def test_each_direction_closes_by_itself(closer: int) -> None:
    pair = pki.connected()
    one, other = pair[closer], pair[1 - closer]
    one.send_data(b"last words")
    one.send_close_notify()
    other.receive_data(one.data_to_send())
    assert other.events() == [ApplicationData(b"last words"), PeerClosed()]
    assert other.peer_closed
    assert not one.peer_closed
    other.send_data(b"an answer")
    other.send_close_notify()
    one.receive_data(other.data_to_send())
    assert one.events() == [ApplicationData(b"an answer"), PeerClosed()]
    for connection in pair:
        connection.receive_eof()


def test_closing_twice_sends_one_close_notify() -> None:
    client, _ = pki.connected()
    client.send_close_notify()
    assert len(client.data_to_send()) == 24
    client.send_close_notify()
    assert not client.has_data_to_send


def test_nothing_is_sent_after_close_notify() -> None:
    client, _ = pki.connected()
    client.send_close_notify()
    client.data_to_send()
    with pytest.raises(MisuseError, match="application data after close_notify"):
        client.send_data(b"x")
    with pytest.raises(MisuseError, match="KeyUpdate after close_notify"):
        client.update_keys()
    assert not client.has_data_to_send


def test_whatever_comes_after_close_notify_is_ignored() -> None:
    client = scripted_client(complete=True)
    close = client.record(ContentType.ALERT, b"\1\0")
    later = client.record(ContentType.APPLICATION_DATA, b"later")
    client.connection.receive_data(close + later + b"junk")
    client.connection.receive_data(later)
    client.connection.receive_data(b"junk")
    assert client.connection.events() == [PeerClosed()]
    assert not client.connection.has_data_to_send
    assert client.connection.take_buffered() == b""


def test_the_streams_end_without_close_notify_is_a_truncation() -> None:
    client, server = pki.connected()
    client.send_data(b"half of it")
    server.receive_data(client.data_to_send())
    with pytest.raises(TruncatedStream, match="ended without close_notify") as caught:
        server.receive_eof()
    assert (caught.value.alert, caught.value.reason) == (None, "truncated")
    assert not server.has_data_to_send
    assert data_of(server) == b"half of it"
    server.receive_eof()  # said once
    with pytest.raises(MisuseError):
        server.receive_data(b"x")


@pytest.mark.parametrize("make", [scripted_server, scripted_client])
def test_the_streams_end_in_the_handshake_is_said_to_be_there(make: Any) -> None:
    peer = make()
    with pytest.raises(TruncatedStream, match="closed the connection during the handshake") as caught:
        peer.connection.receive_eof()
    assert caught.value.alert is None


def test_the_streams_end_after_a_fault_says_nothing_more() -> None:
    client = scripted_client()
    with pytest.raises(NotTls):
        client.connection.receive_data(b"junk")
    client.connection.receive_eof()


def test_the_owner_may_end_a_connection_by_an_alert_of_its_own_once() -> None:
    client = scripted_client(complete=True)
    client.connection.abort(Alert.INTERNAL_ERROR)
    client.connection.abort(Alert.ACCESS_DENIED)
    client.receive()
    assert client.alerts == [(2, Alert.INTERNAL_ERROR)]
    with pytest.raises(MisuseError, match="we ended the connection with internal_error"):
        client.connection.send_data(b"x")
    client.connection.receive_eof()
