"""The pump: whatever the cuts, records that have no place, misuse."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqtls import ServerConnection
from pqtls.connection import Connection
from pqtls.errors import Alert, DecodeError, MisuseError, NotTls, PeerError, ProtocolViolation
from pqtls.events import ApplicationData, HandshakeCompleted
from pqtls.messages import EncryptedExtensions
from pqtls.record import MAX_FRAGMENT, ContentType
from pqtls.traffic import Traffic
from tests.support import pki
from tests.support.connections import SERVER, data_of, fresh, opened, scripted_client, scripted_server
from tests.support.scripted_peer import certificate_request, forged_chain, plain_record, refused

CCS = plain_record(ContentType.CHANGE_CIPHER_SPEC, b"\x01")


# -- any cut ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 1000, 2**20])
def test_a_handshake_and_data_pass_whatever_the_cuts(piece: int) -> None:
    client, server = fresh()
    pki.pump(client, server, piece)
    assert client.handshake_complete
    assert server.handshake_complete
    client.send_data(b"ping" * 100)
    server.send_data(b"pong" * 100)
    pki.pump(client, server, piece)
    assert data_of(server) == b"ping" * 100
    assert data_of(client) == b"pong" * 100


def test_a_handshake_is_complete_on_no_side_before_its_last_message() -> None:
    client, server = fresh()
    server.receive_data(client.data_to_send())
    assert not client.handshake_complete
    flight = server.data_to_send()
    client.receive_data(flight[:-1])
    assert not client.handshake_complete
    client.receive_data(flight[-1:])
    assert client.handshake_complete
    assert not server.handshake_complete
    final = client.data_to_send()
    server.receive_data(final[:-1])
    assert not server.handshake_complete
    assert server.events() == []
    server.receive_data(final[-1:])
    assert server.handshake_complete


def test_data_in_the_same_read_as_the_last_handshake_record_comes_after_the_handshake() -> None:
    client, server = fresh()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    client.send_data(b"at once")
    server.receive_data(client.data_to_send())
    completed, data = server.events()
    assert isinstance(completed, HandshakeCompleted)
    assert data == ApplicationData(b"at once")


def test_a_message_may_span_records_and_a_record_may_hold_several_messages() -> None:
    server = scripted_server()
    hello = server.server_hello().encode()
    server.sent.append(hello)
    for position in range(0, len(hello), 100):
        server.say(ContentType.HANDSHAKE, hello[position : position + 100])
    server.use_handshake_keys()
    flight = [EncryptedExtensions({}).encode(), certificate_request(), forged_chain(*SERVER.chain)]
    server.sent += flight
    flight.append(server.certificate_verify(SERVER))
    server.sent.append(flight[-1])
    flight.append(server.finished())
    stream = b"".join(flight)
    cut = len(flight[0]) + 3  # inside the second message's header
    server.say(ContentType.HANDSHAKE, stream[:cut])
    server.say(ContentType.HANDSHAKE, stream[cut:])
    assert server.connection.handshake_complete


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=MAX_FRAGMENT * 2), min_size=1, max_size=4), st.integers(1, 50000))
def test_any_data_in_any_pieces_arrives_as_it_was_sent(chunks: list[bytes], piece: int) -> None:
    client, server = pki.connected()
    for chunk in chunks:
        client.send_data(chunk)
    pki.pump(client, server, piece)
    assert data_of(server) == b"".join(chunks)


def test_sending_nothing_sends_nothing() -> None:
    client, _ = pki.connected()
    client.send_data(b"")
    assert not client.has_data_to_send
    assert client.data_to_send() == b""


# -- records that have no place ---------------------------------------------------------------------------------------


def test_a_stranger_who_speaks_no_tls_is_told_apart() -> None:
    client = scripted_client()
    with refused(client, NotTls, Alert.DECODE_ERROR) as caught:
        client.connection.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    assert "GET / HTTP/1.1" in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "content"), [(ContentType.ALERT, b"\2\x28"), (ContentType.CHANGE_CIPHER_SPEC, b"\1")]
)
def test_a_record_inside_a_handshake_message_is_an_unexpected_message(content_type: int, content: bytes) -> None:
    client = scripted_client()
    client.say(ContentType.HANDSHAKE, client.client_hello().encode()[:100])
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.say(content_type, content)
    client = scripted_client()
    client.start()
    client.say(ContentType.HANDSHAKE, b"\x0b\x00\x10")
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        if content_type == ContentType.ALERT:
            client.say(content_type, content)
        else:
            client.connection.receive_data(CCS)


def test_an_empty_handshake_record_is_an_unexpected_message() -> None:
    client = scripted_client()
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.connection.receive_data(plain_record(ContentType.HANDSHAKE, b""))
    client = scripted_client(complete=True)
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.say(ContentType.HANDSHAKE, b"")


@pytest.mark.parametrize("content_type", [0, 20, 24, 255])
def test_a_protected_record_of_another_type_is_an_unexpected_message(content_type: int) -> None:
    client = scripted_client(complete=True)
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.say(content_type, b"\x01")


def test_a_message_longer_than_we_take_is_refused_by_its_header() -> None:
    client = scripted_client()
    with refused(client, DecodeError, Alert.DECODE_ERROR):
        client.say(ContentType.HANDSHAKE, b"\x01\xff\xff\xff")


def test_a_plain_record_that_is_too_long_is_a_record_overflow() -> None:
    client = scripted_client()
    with refused(client, ProtocolViolation, Alert.RECORD_OVERFLOW):
        client.connection.receive_data(b"\x16\x03\x01\x40\x01")


@pytest.mark.parametrize("content_type", [20, 21, 22, 24])
def test_an_unprotected_record_after_the_handshake_is_an_unexpected_message(content_type: int) -> None:
    client = scripted_client(complete=True)
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        client.connection.receive_data(plain_record(content_type, b"\x01\x00"))
    assert str(caught.value) == "an unprotected record after the handshake"


def test_an_unprotected_handshake_record_among_protected_ones_is_an_unexpected_message() -> None:
    server = scripted_server()
    server.send_server_hello()
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        server.connection.receive_data(plain_record(ContentType.HANDSHAKE, EncryptedExtensions({}).encode()))
    assert str(caught.value) == "an unprotected record among protected ones"


def test_a_record_that_fails_authentication_ends_the_connection() -> None:
    client = scripted_client(complete=True)
    record = bytearray(client.record(ContentType.APPLICATION_DATA, b"hello"))
    record[-1] ^= 1
    with refused(client, ProtocolViolation, Alert.BAD_RECORD_MAC):
        client.connection.receive_data(record)


# -- change_cipher_spec -----------------------------------------------------------------------------------------------


def test_change_cipher_spec_is_dropped_where_middlebox_compatibility_puts_it() -> None:
    client, server = fresh()
    server.receive_data(client.data_to_send() + CCS)
    flight = server.data_to_send()
    hello_end = 5 + int.from_bytes(flight[3:5], "big")
    client.receive_data(CCS + flight[:hello_end] + CCS[:3])
    client.receive_data(CCS[3:] + flight[hello_end:])
    server.receive_data(CCS + client.data_to_send())
    assert client.handshake_complete
    assert server.handshake_complete


@pytest.mark.parametrize("content", [b"\x02", b"\x01\x01", b""])
def test_a_change_cipher_spec_of_another_value_is_an_unexpected_message(content: bytes) -> None:
    for protected in (False, True):
        server = scripted_server()
        if protected:
            server.send_server_hello()
        with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
            server.connection.receive_data(plain_record(ContentType.CHANGE_CIPHER_SPEC, content))


def test_a_change_cipher_spec_before_the_client_hello_is_an_unexpected_message() -> None:
    client = scripted_client()
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        client.connection.receive_data(CCS)
    assert str(caught.value) == "a change_cipher_spec before the ClientHello"


def test_change_cipher_specs_without_end_are_refused() -> None:
    server = scripted_server()
    server.connection.receive_data(CCS * 8)
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        server.connection.receive_data(CCS)


# -- misuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [0, 1])
def test_data_before_the_handshake_is_misuse(make: int) -> None:
    connection = fresh()[make]
    for call in (
        lambda: connection.send_data(b"x"),
        connection.update_keys,
        lambda: opened(connection, b"x"),
    ):
        with pytest.raises(MisuseError):
            call()


def test_a_connection_that_was_not_started_is_misuse() -> None:
    connection = Connection(is_client=False)
    with pytest.raises(MisuseError, match="not started"):
        connection.receive_data(plain_record(ContentType.HANDSHAKE, b"\x01\0\0\0"))


def test_traffic_without_sending_keys_is_misuse() -> None:
    """Cannot happen through the states; the pump says so rather than sending plaintext."""
    client, _ = pki.connected()
    client.effects.sealer = None
    state = client._state
    client._state = _NoKeys(**{field.name: getattr(state, field.name) for field in dataclasses.fields(_NoKeys)})
    with pytest.raises(MisuseError, match="no sending keys"):
        client.send_data(b"x")
    assert not client.has_data_to_send


class _NoKeys(Traffic):
    __slots__ = ()

    def update_keys(self, effects: Any, *, request_peer: bool = False) -> Any:
        return self


def test_a_dead_connection_does_nothing_more() -> None:
    client = scripted_client()
    with pytest.raises(NotTls):
        client.connection.receive_data(b"junk")
    for call in (
        lambda: client.connection.receive_data(b"x"),
        lambda: client.connection.send_data(b"x"),
        lambda: opened(client.connection, b"x"),
        client.connection.send_close_notify,
        client.connection.update_keys,
    ):
        with pytest.raises(MisuseError, match="the connection is dead: the peer does not speak TLS"):
            call()


# -- application data where none may be (RFC 8446 §5.1) ---------------------------------------------------------------


@pytest.mark.parametrize("data", [b"data", b""])
@pytest.mark.parametrize("in_one_read", [True, False])
@pytest.mark.parametrize("fast_path", [True, False])
def test_application_data_inside_a_handshake_message_is_an_unexpected_message(
    data: bytes, in_one_read: bool, fast_path: bool
) -> None:
    client, server = pki.connected()
    sealer = server.effects.sealer
    assert sealer is not None
    key_update = b"\x18\x00\x00\x01\x01"
    records = [
        sealer.seal(ContentType.HANDSHAKE, key_update[:2]),
        sealer.seal(ContentType.APPLICATION_DATA, data),
        sealer.seal(ContentType.HANDSHAKE, key_update[2:]),
    ]
    with pytest.raises(ProtocolViolation) as caught:
        for read in [b"".join(records)] if in_one_read else records:
            if fast_path:
                client.open_into(memoryview(read), memoryview(bytearray(len(read))))
            else:
                client.receive_data(read)
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("data", [b"data", b""])
def test_application_data_under_handshake_keys_is_an_unexpected_message(data: bytes) -> None:
    client, server = fresh()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send()[:5000])  # ServerHello came, and some of what is protected
    sealer = client.effects.sealer
    assert sealer is not None
    assert not client.handshake_complete
    with pytest.raises(ProtocolViolation) as caught:
        server.receive_data(sealer.seal(ContentType.APPLICATION_DATA, data))
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("extra", [b"X", b"XX"])
def test_an_unknown_content_type_before_the_padding_is_not_taken_for_padding(extra: bytes) -> None:
    client, server = pki.connected()
    sealer = server.effects.sealer
    assert sealer is not None
    # TLSInnerPlaintext (§5.4): data, its type, `extra`, padding; the last byte of it stands where seal() puts a type.
    record = sealer.seal(0, b"data\x17" + extra + bytes(3))  # type: ignore[arg-type]
    with pytest.raises(ProtocolViolation) as caught:
        client.receive_data(record)
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


# -- what is left of it -----------------------------------------------------------------------------------------------


def _junk(server: Connection) -> None:
    server.receive_data(b"junk")


def _cut(server: Connection) -> None:
    server.receive_eof()


def _broken_record(server: Connection) -> None:
    record = b"\x17\x03\x03\x00\x20" + bytes(32)
    server.open_into(memoryview(record), memoryview(bytearray(len(record))))


@pytest.mark.parametrize(("fails", "handshaken"), [(_junk, False), (_cut, False), (_cut, True), (_broken_record, True)])
def test_a_connection_that_died_is_freed_at_once_and_not_when_a_garbage_collector_looks(
    fails: Callable[[Connection], None], handshaken: bool
) -> None:
    """It has some hundred KB of keys and certificates, of which that collector sees a few objects: strangers must not
    be able to pile them up.
    """
    server: Connection | None = pki.connected()[1] if handshaken else ServerConnection(pki.server_config())
    assert server is not None
    freed = weakref.ref(server)
    gc.disable()
    try:
        with contextlib.suppress(PeerError):
            fails(server)
        server = None
        assert freed() is None
    finally:
        gc.enable()
