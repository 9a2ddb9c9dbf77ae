"""After the handshake: keys change, tickets are read, nothing else comes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import pqtls
from pqtls.errors import Alert, DecodeError, ProtocolViolation
from pqtls.events import ApplicationData, PeerKeysUpdated
from pqtls.framing import HandshakeType, write_message
from pqtls.messages import encode_key_update, parse_key_update
from pqtls.profiles import QBITEL
from pqtls.record import ContentType, RecordOpener
from pqtls.suites import TLS_AES_256_GCM_SHA384
from pqtls.traffic import DATA_PER_MESSAGE, MAX_MESSAGES_WITHOUT_DATA, MESSAGES_ANYWAY, Traffic
from pqtls.wire import vector
from tests.support import pki
from tests.support.connections import scripted_client, scripted_server
from tests.support.scripted_peer import ScriptedPeer, ScriptedServer, refused

_TICKET = write_message(HandshakeType.NEW_SESSION_TICKET, bytes(8) + vector(1, b"n") + vector(2, b"t") + vector(2, b""))


def _own_secret(peer: ScriptedPeer) -> Any:
    return peer.application.server if isinstance(peer, ScriptedServer) else peer.application.client


def _their_secret(peer: ScriptedPeer) -> Any:
    return peer.application.client if isinstance(peer, ScriptedServer) else peer.application.server


BOTH = pytest.mark.parametrize("make", [scripted_server, scripted_client], ids=["client", "server"])


@BOTH
def test_a_key_update_of_the_peer_changes_the_keys_that_open_and_asks_for_nothing(make: Any) -> None:
    peer = make(complete=True)
    following = peer.update_keys(_own_secret(peer))
    peer.say(ContentType.APPLICATION_DATA, b"under new keys")
    peer.update_keys(following)
    peer.say(ContentType.APPLICATION_DATA, b"under newer keys")
    assert peer.connection.events() == [
        PeerKeysUpdated(),
        ApplicationData(b"under new keys"),
        PeerKeysUpdated(),
        ApplicationData(b"under newer keys"),
    ]
    peer.connection.send_data(b"still under the old keys")
    peer.receive()
    assert peer.data == b"still under the old keys"


@BOTH
def test_data_under_the_old_keys_after_a_key_update_is_a_bad_record(make: Any) -> None:
    peer = make(complete=True)
    peer.say(ContentType.HANDSHAKE, encode_key_update(False))
    with refused(peer, ProtocolViolation, Alert.BAD_RECORD_MAC):
        peer.say(ContentType.APPLICATION_DATA, b"under the old keys")


@BOTH
def test_any_number_of_requests_is_answered_by_one_update_before_the_next_data(make: Any) -> None:
    peer = make(complete=True)
    secret = _own_secret(peer)
    for _ in range(5):
        secret = peer.update_keys(secret, request=True)
    assert not peer.connection.has_data_to_send
    peer.messages.clear()
    peer.connection.send_data(b"answer")
    data = peer.connection.data_to_send()
    plaintext = bytearray(len(data))
    opener = RecordOpener(_their_secret(peer))  # nothing was sent yet under the first application keys
    consumed, _, content_type, size = opener.open_into(memoryview(data), memoryview(plaintext))
    assert content_type == ContentType.HANDSHAKE
    assert plaintext[:4] == b"\x18\x00\x00\x01"
    assert parse_key_update(bytes(plaintext[4:size])) is False
    opener = RecordOpener(_their_secret(peer).next_generation())
    rest, produced, _, _ = opener.open_into(memoryview(data)[consumed:], memoryview(plaintext))
    assert plaintext[:produced] == b"answer"
    assert consumed + rest == len(data)


def test_a_later_update_without_a_request_does_not_take_the_request_back() -> None:
    client, server = pki.connected()
    client.update_keys(request_peer=True)
    client.update_keys()
    server.receive_data(client.data_to_send())
    server.send_data(b"answer")
    client.receive_data(server.data_to_send())
    assert client.events() == [PeerKeysUpdated(), ApplicationData(b"answer")]


def test_either_side_changes_its_keys_and_asks_for_the_others() -> None:
    client, server = pki.connected()
    for one, other in ((client, server), (server, client)):
        one.update_keys(request_peer=True)
        pki.pump(client, server)
        assert other.events() == [PeerKeysUpdated()]
        assert one.events() == []
        other.send_data(b"answer")
        pki.pump(client, server)
        assert one.events() == [PeerKeysUpdated(), ApplicationData(b"answer")]
        one.send_data(b"more")
        pki.pump(client, server)
        assert other.events() == [ApplicationData(b"more")]


@BOTH
@pytest.mark.parametrize(
    ("message", "error", "alert"),
    [
        (write_message(HandshakeType.KEY_UPDATE, b"\2"), ProtocolViolation, Alert.ILLEGAL_PARAMETER),
        (write_message(HandshakeType.KEY_UPDATE, b""), DecodeError, Alert.DECODE_ERROR),
        (write_message(HandshakeType.KEY_UPDATE, b"\0\0"), DecodeError, Alert.DECODE_ERROR),
        (encode_key_update(False) * 2, ProtocolViolation, Alert.UNEXPECTED_MESSAGE),
        (encode_key_update(False) + b"\x18", ProtocolViolation, Alert.UNEXPECTED_MESSAGE),
        (write_message(HandshakeType.FINISHED, bytes(48)), ProtocolViolation, Alert.UNEXPECTED_MESSAGE),
        (write_message(HandshakeType.CLIENT_HELLO, b""), ProtocolViolation, Alert.UNEXPECTED_MESSAGE),
        (write_message(HandshakeType.CERTIFICATE_REQUEST, b""), ProtocolViolation, Alert.UNEXPECTED_MESSAGE),
        (b"\x63\0\0\0", ProtocolViolation, Alert.UNEXPECTED_MESSAGE),
    ],
    ids=["2", "empty", "two bytes", "twice in a record", "more behind it", "finished", "hello", "request", "unknown"],
)
def test_a_message_that_has_no_place_or_no_sense_gets_its_alert(
    make: Any, message: bytes, error: type[ProtocolViolation], alert: Alert
) -> None:
    peer = make(complete=True)
    with refused(peer, error, alert):
        peer.say(ContentType.HANDSHAKE, message)


def test_a_ticket_with_a_lifetime_of_nothing_is_read_and_dropped() -> None:
    server = scripted_server(complete=True)
    server.say(ContentType.HANDSHAKE, _TICKET * 2)
    server.say(ContentType.APPLICATION_DATA, b"data")
    assert server.connection.events() == [ApplicationData(b"data")]
    with refused(server, DecodeError, Alert.DECODE_ERROR):
        server.say(ContentType.HANDSHAKE, write_message(HandshakeType.NEW_SESSION_TICKET, bytes(9)))


def test_a_server_takes_no_ticket() -> None:
    client = scripted_client(complete=True)
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        client.say(ContentType.HANDSHAKE, _TICKET)
    assert str(caught.value) == "a client sent a session ticket"


@BOTH
def test_a_flood_of_key_updates_without_data_is_refused(make: Any) -> None:
    peer = make(complete=True)
    secret = _own_secret(peer)
    for _ in range(MAX_MESSAGES_WITHOUT_DATA):
        secret = peer.update_keys(secret, request=True)
    with refused(peer, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        peer.say(ContentType.HANDSHAKE, encode_key_update(False))
    assert str(caught.value) == f"more than {MAX_MESSAGES_WITHOUT_DATA} messages without application data"


@BOTH
def test_data_between_key_updates_begins_the_count_anew(make: Any) -> None:
    peer = make(complete=True)
    secret = _own_secret(peer)
    for _ in range(3 * MAX_MESSAGES_WITHOUT_DATA):
        secret = peer.update_keys(secret)
        peer.say(ContentType.APPLICATION_DATA, b"x")
    assert peer.connection.events().count(PeerKeysUpdated()) == 3 * MAX_MESSAGES_WITHOUT_DATA


@BOTH
@pytest.mark.parametrize("size", [1, DATA_PER_MESSAGE])
def test_key_updates_beyond_what_the_data_allows_are_refused_and_honest_ones_are_not(make: Any, size: int) -> None:
    peer = make(complete=True)
    secret = _own_secret(peer)
    allowed = MESSAGES_ANYWAY + (MESSAGES_ANYWAY * size) // DATA_PER_MESSAGE
    for number in range(allowed):
        secret = peer.update_keys(secret)
        if number < MESSAGES_ANYWAY or not number % MAX_MESSAGES_WITHOUT_DATA:
            # what comes behind the first thousand is so little that it allows nothing more
            peer.say(ContentType.APPLICATION_DATA, bytes(size if number < MESSAGES_ANYWAY else 1))
        peer.connection.events()
    with refused(peer, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        peer.say(ContentType.HANDSHAKE, encode_key_update(False))
    assert str(caught.value) == "too many messages for so little application data"


def test_a_worn_key_is_changed_by_its_sender_before_the_next_record() -> None:
    suite = dataclasses.replace(TLS_AES_256_GCM_SHA384, records_per_key=3)
    profile = dataclasses.replace(QBITEL, cipher_suites=(suite,))
    client, server = pki.connected(pki.client_config(profiles=(profile,)))
    for number in range(20):
        client.send_data(b"%02d" % number)
        pki.pump(client, server)
    events = server.events()
    received = b"".join(event.data for event in events if isinstance(event, ApplicationData))
    assert received == b"".join(b"%02d" % number for number in range(20))
    assert events.count(PeerKeysUpdated()) == 6  # after each three of the first eighteen records


def test_one_long_write_may_need_several_keys() -> None:
    suite = dataclasses.replace(TLS_AES_256_GCM_SHA384, records_per_key=3)
    profile = dataclasses.replace(QBITEL, cipher_suites=(suite,))
    client, server = pki.connected(pki.client_config(profiles=(profile,)))
    source = bytearray(4 * 2**14 + 1)
    target = bytearray(pqtls.sealed_size(4 * 2**14) + 100)
    written = client.seal_into(memoryview(source), 4 * 2**14, memoryview(target))
    server.receive_data(memoryview(target)[:written])
    events = server.events()
    assert events[0] == PeerKeysUpdated()
    assert events[1] == ApplicationData(bytes(4 * 2**14))


def test_a_receiver_asks_once_for_new_keys_when_the_senders_are_worn() -> None:
    suite = dataclasses.replace(TLS_AES_256_GCM_SHA384, records_per_key=3)
    profile = dataclasses.replace(QBITEL, cipher_suites=(suite,))
    client, server = pki.connected(server=pki.server_config(profiles=(profile,)))
    for number in range(5):
        client.send_data(b"x")
        server.receive_data(client.data_to_send())
        assert server.has_data_to_send is (number >= 2), "asked with the third record"
    client.receive_data(server.data_to_send())
    assert client.events() == [PeerKeysUpdated()]
    client.send_data(b"y")
    server.receive_data(client.data_to_send())
    assert server.events()[-2:] == [PeerKeysUpdated(), ApplicationData(b"y")]


def test_a_receiver_that_has_closed_asks_for_nothing() -> None:
    suite = dataclasses.replace(TLS_AES_256_GCM_SHA384, records_per_key=2)
    profile = dataclasses.replace(QBITEL, cipher_suites=(suite,))
    client, server = pki.connected(server=pki.server_config(profiles=(profile,)))
    server.send_close_notify()
    server.data_to_send()
    for _ in range(4):
        client.send_data(b"x")
        server.receive_data(client.data_to_send())
    assert not server.has_data_to_send


def test_traffic_cannot_be_made_without_the_proofs() -> None:
    with pytest.raises(TypeError, match=r"authentication.*finished"):
        Traffic(reading=None, writing=None, exporter=None, sessions=None)  # type: ignore[call-arg,arg-type]
