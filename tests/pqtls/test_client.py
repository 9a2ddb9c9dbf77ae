"""The client against a scripted server: its states, its ClientHello, and what it takes as ServerHello."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import pqtls
from pqtls import extensions as ext
from pqtls.errors import Alert, DecodeError, PeerError, ProtocolViolation
from pqtls.extensions import KeyShareEntry
from pqtls.framing import HandshakeType, write_message
from pqtls.groups import X25519MLKEM768, X25519MLKEM1024
from pqtls.messages import (
    DOWNGRADE_SENTINELS,
    Certificate,
    CertificateVerify,
    EncryptedExtensions,
    ServerHello,
    encode_finished,
    encode_key_update,
)
from pqtls.profiles import COMPAT, QBITEL
from pqtls.suites import TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384
from pqtls.wire import uint16, vector
from tests.support import pki
from tests.support.scripted_peer import ScriptedServer, certificate_request, forged_chain, refused, replaced
from tests.support.toward_client import (
    SERVER,
    before_certificate,
    before_encrypted_extensions,
    before_finished,
    before_request,
    before_server_hello,
    before_verify,
)

TWO_GROUPS = replace(QBITEL, name="two groups", groups=(X25519MLKEM1024, X25519MLKEM768))
TWO_SUITES = replace(QBITEL, name="two suites", cipher_suites=(TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256))
_ILLEGAL = (ProtocolViolation, Alert.ILLEGAL_PARAMETER)


_STATES: dict[str, tuple[Callable[[], ScriptedServer], set[int]]] = {
    "server_hello": (before_server_hello, {HandshakeType.SERVER_HELLO}),
    "encrypted_extensions": (before_encrypted_extensions, {HandshakeType.ENCRYPTED_EXTENSIONS}),
    "certificate_request": (before_request, {HandshakeType.CERTIFICATE_REQUEST, HandshakeType.CERTIFICATE}),
    "certificate": (before_certificate, {HandshakeType.CERTIFICATE}),
    "certificate_verify": (before_verify, {HandshakeType.CERTIFICATE_VERIFY}),
    "finished": (before_finished, {HandshakeType.FINISHED}),
}


def _samples(server: ScriptedServer) -> dict[int, bytes]:
    """One well-formed message of each type."""
    return {
        HandshakeType.CLIENT_HELLO: server.hello.encode(),
        HandshakeType.SERVER_HELLO: server.server_hello().encode(),
        HandshakeType.ENCRYPTED_EXTENSIONS: EncryptedExtensions({}).encode(),
        HandshakeType.CERTIFICATE_REQUEST: certificate_request(),
        HandshakeType.CERTIFICATE: forged_chain(*SERVER.chain),
        HandshakeType.CERTIFICATE_VERIFY: CertificateVerify(0x0906, b"x").encode(),
        HandshakeType.FINISHED: encode_finished(bytes(48)),
        HandshakeType.KEY_UPDATE: encode_key_update(False),
        HandshakeType.NEW_SESSION_TICKET: write_message(HandshakeType.NEW_SESSION_TICKET, b""),
        HandshakeType.END_OF_EARLY_DATA: write_message(HandshakeType.END_OF_EARLY_DATA, b""),
        99: b"\x63\x00\x00\x00",
    }


def test_a_right_server_completes_the_handshake() -> None:
    server = before_server_hello()
    server.finish_handshake(SERVER)
    (event,) = server.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert event.peer_identity == pki.identity("server")
    assert event.client_authenticated
    assert [message.type for message in server.messages] == [1, 11, 15, 20]
    assert Certificate.parse(server.messages[1].body).entries[0].certificate == pki.leaf("client").der
    transcript = server.sent[:-2]
    server.sent, whole = transcript, server.sent
    assert CertificateVerify.parse(server.messages[2].body).scheme == 0x0906
    server.sent = whole[:-1]
    assert server.messages[3].raw == encode_finished(server.secrets.client.finished(server.digest()))


def test_a_server_that_asks_for_no_certificate_gets_none_and_the_event_says_so() -> None:
    server = before_server_hello()
    server.finish_handshake(SERVER, request=False)
    (event,) = server.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert not event.client_authenticated
    assert [message.type for message in server.messages] == [1, 20]


@pytest.mark.parametrize("state", _STATES)
def test_any_other_message_in_any_state_is_an_unexpected_message(state: str) -> None:
    make, wanted = _STATES[state]
    for kind in (1, 2, 4, 5, 8, 11, 13, 15, 20, 24, 99):
        if kind in wanted:
            continue
        server = make()
        with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
            server.send(_samples(server)[kind])
        assert f"came where {state if state != 'certificate_request' else 'certificate'}" in str(caught.value)


@pytest.mark.parametrize("state", _STATES)
def test_a_message_that_cannot_be_parsed_is_a_decode_error(state: str) -> None:
    make, wanted = _STATES[state]
    for kind in wanted:
        server = make()
        with refused(server, DecodeError, Alert.DECODE_ERROR):
            server.send(bytes((kind, 0, 0, 1, 0)))


# -- ClientHello ------------------------------------------------------------------------------------------------------


def test_the_hello_offers_what_the_profile_lists_and_nothing_else() -> None:
    hello = before_server_hello(profiles=(COMPAT,)).hello
    assert hello.legacy_version == 0x0303
    assert (hello.session_id, hello.compression_methods) == (b"", b"\0")
    assert hello.cipher_suites == (0x1302, 0x1301, 0x1303)
    assert list(hello.extensions) == [10, 13, 47, 28, 43, 45, 51]
    assert ext.read_code_points(hello.extensions[10], "groups") == (0x11EC,)
    assert ext.read_code_points(hello.extensions[13], "schemes") == (0x0906, 0x0503, 0x0403)
    assert ext.read_authorities(hello.extensions[47]) == (pki.root().certificate.subject.public_bytes(),)
    assert ext.read_record_size_limit(hello.extensions[28]) == 2**14 + 1
    assert ext.read_client_versions(hello.extensions[43]) == (0x0304,)
    assert ext.read_psk_modes(hello.extensions[45]) == bytes((ext.PSK_DHE_KE,))
    (share,) = ext.read_client_key_shares(hello.extensions[51])
    assert (share.group, len(share.key_exchange)) == (0x11EC, 1216)


def test_the_hello_carries_a_share_for_the_preferred_group_alone() -> None:
    hello = before_server_hello(profiles=(TWO_GROUPS,)).hello
    assert ext.read_code_points(hello.extensions[10], "groups") == (0xFEC4, 0x11EC)
    assert [share.group for share in ext.read_client_key_shares(hello.extensions[51])] == [0xFEC4]


def test_the_hello_carries_server_name_and_alpn_where_they_are_given() -> None:
    hello = before_server_hello(server_name="web.example", alpn=(b"one", b"two")).hello
    assert ext.read_server_name(hello.extensions[0]) == "web.example"
    assert ext.read_alpn(hello.extensions[16]) == (b"one", b"two")


def test_two_hellos_share_neither_random_nor_key() -> None:
    one, two = before_server_hello().hello, before_server_hello().hello
    assert one.random != two.random
    assert one.extensions[51] != two.extensions[51]


# -- ServerHello ------------------------------------------------------------------------------------------------------


def _share_of(server: ScriptedServer, code_point: int, change: Callable[[bytes], bytes] = bytes) -> dict[str, bytes]:
    server.server_hello()
    return {"key_share": KeyShareEntry(code_point, change(server.answer.share)).encode()}


@pytest.mark.parametrize(
    ("changes", "error", "alert"),
    [
        ({"legacy_version": 0x0304}, *_ILLEGAL),
        ({"legacy_version": 0x0301}, *_ILLEGAL),
        ({"session_id_echo": b"x"}, *_ILLEGAL),
        ({"cipher_suite": 0x1301}, *_ILLEGAL),
        ({"cipher_suite": 0x0000}, *_ILLEGAL),
        ({"compression_method": 1}, *_ILLEGAL),
    ],
)
def test_a_field_of_server_hello_that_was_not_offered_is_an_illegal_parameter(
    changes: dict[str, Any], error: type[PeerError], alert: Alert
) -> None:
    server = before_server_hello()
    with refused(server, error, alert):
        server.send(server.server_hello(**changes).encode())


@pytest.mark.parametrize(
    ("extensions", "alert"),
    [
        ({"supported_versions": uint16(0x0303)}, Alert.ILLEGAL_PARAMETER),
        ({"supported_versions": uint16(0x0305)}, Alert.ILLEGAL_PARAMETER),
        ({"supported_versions": None}, Alert.PROTOCOL_VERSION),
        ({"key_share": None}, Alert.MISSING_EXTENSION),
        ({"key_share": KeyShareEntry(0x11EC, b"x").encode()}, Alert.ILLEGAL_PARAMETER),
        ({"key_share": KeyShareEntry(0xFEC4, bytes(1599)).encode()}, Alert.ILLEGAL_PARAMETER),
        ({"key_share": KeyShareEntry(0xFEC4, bytes(1600)).encode()}, Alert.ILLEGAL_PARAMETER),
        ({"cookie": b"\0\1x"}, Alert.ILLEGAL_PARAMETER),
        ({"alpn": b""}, Alert.ILLEGAL_PARAMETER),
        ({"pre_shared_key": b"\0\0"}, Alert.UNSUPPORTED_EXTENSION),
    ],
)
def test_an_extension_of_server_hello_that_is_wrong_gets_its_alert(
    extensions: dict[str, bytes | None], alert: Alert
) -> None:
    server = before_server_hello()
    hello = server.server_hello()
    with refused(server, ProtocolViolation, alert):
        server.send(replace(hello, extensions=replaced(hello.extensions, **extensions)).encode())


def test_an_unknown_extension_in_server_hello_is_unsupported() -> None:
    server = before_server_hello()
    hello = server.server_hello()
    with refused(server, ProtocolViolation, Alert.UNSUPPORTED_EXTENSION):
        server.send(replace(hello, extensions=hello.extensions | {0xABCD: b""}).encode())


def test_an_extension_that_comes_twice_in_server_hello_is_an_illegal_parameter() -> None:
    server = before_server_hello()
    body = server.server_hello(extensions={}).encode()[4:-2]
    twice = 2 * (uint16(43) + vector(2, uint16(0x0304)))
    with refused(server, *_ILLEGAL) as caught:
        server.send(write_message(HandshakeType.SERVER_HELLO, body + vector(2, twice)))
    assert "extension 43 comes twice" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xfe", b"\xfe\xc4\x00", b"\xfe\xc4\x00\x00", b"\xfe\xc4\x00\x01xx"])
def test_a_key_share_that_cannot_be_parsed_is_a_decode_error(content: bytes) -> None:
    server = before_server_hello()
    hello = server.server_hello()
    with refused(server, DecodeError, Alert.DECODE_ERROR):
        server.send(replace(hello, extensions=replaced(hello.extensions, key_share=content)).encode())


def test_a_server_hello_of_tls_1_2_is_refused_by_its_version() -> None:
    server = before_server_hello()
    hello = ServerHello(0x0303, bytes(32), b"", 0xC030, 0, {}).encode()
    with refused(server, ProtocolViolation, Alert.PROTOCOL_VERSION) as caught:
        server.send(hello[:1] + (len(hello) - 6).to_bytes(3, "big") + hello[4:-2])  # without an extensions block
    assert "speaks an older TLS" in str(caught.value)


@pytest.mark.parametrize("sentinel", DOWNGRADE_SENTINELS)
def test_a_downgrade_is_seen_by_the_servers_random(sentinel: bytes) -> None:
    server = before_server_hello()
    with refused(server, *_ILLEGAL) as caught:
        server.send(ServerHello(0x0303, bytes(24) + sentinel, b"", 0xC030, 0, {}).encode())
    assert "downgrade" in str(caught.value)


def test_more_handshake_data_behind_server_hello_in_its_record_is_an_unexpected_message() -> None:
    server = before_server_hello()
    hello = server.server_hello().encode()
    server.sent.append(hello)
    early = server.sealer
    server.use_handshake_keys()
    server.sealer, server.sent = early, server.sent[:-1]
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        server.send(hello, EncryptedExtensions({}).encode())
    assert "in the record that ended an epoch" in str(caught.value)
