"""What the server takes as ClientHello, field by field, and the alert for each that is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import pqtls
from pqtls import extensions as ext
from pqtls.errors import Alert, DecodeError, NegotiationRefused, PeerError, ProtocolViolation
from pqtls.framing import HandshakeType, write_message
from pqtls.groups import MLKEM1024, SECP384R1MLKEM1024, X25519MLKEM768, X25519MLKEM1024, generate
from pqtls.messages import ClientHello, EncryptedExtensions, ServerHello
from pqtls.provider_cryptography import PROVIDER
from pqtls.wire import uint16, uint16_list, vector
from tests.support import pki
from tests.support.scripted_peer import ScriptedClient, forged_chain, refused, replaced
from tests.support.toward_server import CLIENT, before_client_hello, key_shares

_ILLEGAL = (ProtocolViolation, Alert.ILLEGAL_PARAMETER)


# -- ClientHello ------------------------------------------------------------------------------------------------------


def _hello_refused(
    error: type[PeerError], alert: Alert, *, config: dict[str, Any] | None = None, **changes: Any
) -> str:
    """Send a ClientHello with changes, of fields or (by name) of extensions."""
    client = before_client_hello(**(config or {}))
    hello = client.client_hello()
    fields = {name: value for name, value in changes.items() if name in ClientHello.__slots__}
    extensions = {name: value for name, value in changes.items() if name not in fields}
    hello = replace(hello, **({"extensions": replaced(hello.extensions, **extensions)} | fields))
    with refused(client, error, alert) as caught:
        client.send(hello.encode())
    assert client.messages == []
    return str(caught.value)


@pytest.mark.parametrize("versions", [None, b"\x02\x03\x03", b"\x04\x03\x03\x7f\x1c"])
def test_a_client_that_does_not_speak_tls_1_3_is_refused_by_its_version(versions: bytes | None) -> None:
    text = _hello_refused(NegotiationRefused, Alert.PROTOCOL_VERSION, supported_versions=versions)
    assert text == "the client does not speak TLS 1.3"


def test_a_hello_of_tls_1_2_without_extensions_is_refused_by_its_version() -> None:
    client = before_client_hello()
    body = uint16(0x0303) + bytes(32) + b"\0" + uint16_list((0xC030,)) + b"\x01\x00"
    with refused(client, NegotiationRefused, Alert.PROTOCOL_VERSION):
        client.send(write_message(HandshakeType.CLIENT_HELLO, body))


@pytest.mark.parametrize("version", [0x0301, 0x0304, 0x7F7F])
def test_the_legacy_version_is_ignored_where_supported_versions_stands(version: int) -> None:
    client = before_client_hello()
    client.send(client.client_hello(legacy_version=version).encode())
    client.receive()
    assert client.messages[0].type == HandshakeType.SERVER_HELLO


@pytest.mark.parametrize("name", ["key_share", "supported_groups", "signature_algorithms"])
def test_a_hello_without_a_mandatory_extension_is_refused_by_its_name(name: str) -> None:
    text = _hello_refused(ProtocolViolation, Alert.MISSING_EXTENSION, **{name: None})
    assert text == f"the ClientHello lacks {name}"


@pytest.mark.parametrize("methods", [b"\x01", b"\x00\x01", b"\x01\x00"])
def test_a_hello_that_offers_compression_is_an_illegal_parameter(methods: bytes) -> None:
    _hello_refused(*_ILLEGAL, compression_methods=methods)


def test_a_client_with_nothing_in_common_is_refused_and_told_what_is_wanted() -> None:
    failure = (NegotiationRefused, Alert.HANDSHAKE_FAILURE)
    text = _hello_refused(*failure, cipher_suites=(0x1301, 0x1303))
    assert text == "the client offers no cipher suite of profile qbitel (TLS_AES_256_GCM_SHA384)"
    text = _hello_refused(*failure, signature_algorithms=uint16_list((0x0804, 0x0403)))
    assert text == "the client does not take mldsa87 (signature_algorithms)"
    text = _hello_refused(*failure, signature_algorithms_cert=uint16_list((0x0804,)))
    assert text == "the client does not take mldsa87 (signature_algorithms_cert)"
    text = _hello_refused(*failure, supported_groups=uint16_list((0x001D, 0x11EC)), key_share=b"\0\0")
    assert text == "the client offers the groups 0x001d, 0x11ec; we take only profile qbitel (X25519MLKEM1024)"


@pytest.mark.parametrize("group", [X25519MLKEM768, SECP384R1MLKEM1024, MLKEM1024], ids=lambda group: group.name)
def test_a_share_of_a_group_that_the_profile_does_not_list_is_never_used(group: Any) -> None:
    client = ScriptedClient(pqtls.ServerConnection(pki.server_config()), group)
    with refused(client, NegotiationRefused, Alert.HANDSHAKE_FAILURE):
        client.send(client.client_hello().encode())


def test_shares_must_be_of_offered_groups_once_each_and_in_their_order() -> None:
    good = generate(X25519MLKEM1024, PROVIDER).public
    twice = _hello_refused(*_ILLEGAL, key_share=key_shares((0xFEC4, good), (0xFEC4, good)))
    assert "has two key shares" in twice
    foreign = _hello_refused(*_ILLEGAL, key_share=key_shares((0xFEC4, good), (0x001D, bytes(32))))
    assert "0x001d is not in supported_groups, or not in its order" in foreign
    groups = uint16_list((0x001D, 0xFEC4))
    _hello_refused(*_ILLEGAL, supported_groups=groups, key_share=key_shares((0xFEC4, good), (0x001D, bytes(32))))


@pytest.mark.parametrize("size", [1, 1599, 1601])
def test_a_share_of_the_wrong_size_is_an_illegal_parameter(size: int) -> None:
    text = _hello_refused(*_ILLEGAL, key_share=key_shares((0xFEC4, bytes(size))))
    assert text == f"a X25519MLKEM1024 share has 1600 bytes, the peer's has {size}"


def test_a_kem_key_that_fails_the_modulus_check_is_an_illegal_parameter() -> None:
    good = generate(X25519MLKEM1024, PROVIDER).public
    text = _hello_refused(*_ILLEGAL, key_share=key_shares((0xFEC4, b"\xff\xff\xff" + good[3:])))
    assert "fails the check of FIPS 203 section 7.2" in text


def test_an_x25519_point_of_small_order_is_an_illegal_parameter() -> None:
    good = generate(X25519MLKEM1024, PROVIDER).public
    assert "all zeros" in _hello_refused(*_ILLEGAL, key_share=key_shares((0xFEC4, good[:-32] + bytes(32))))


@pytest.mark.parametrize(
    "extensions",
    [
        {"supported_groups": b"\0\0"},
        {"supported_groups": b"\0\3\xfe\xc4\0"},
        {"signature_algorithms": b""},
        {"supported_versions": b"\x03\x03\x04\x03"},
        {"key_share": b"\0\1\0"},
        {"key_share": key_shares((0xFEC4, b""))},
        {"alpn": b"\0\0"},
        {"server_name": b"\0\1\0"},
    ],
    ids=str,
)
def test_an_extension_that_cannot_be_parsed_is_a_decode_error(extensions: dict[str, Any]) -> None:
    _hello_refused(DecodeError, Alert.DECODE_ERROR, **extensions)


def test_an_extension_that_comes_twice_is_an_illegal_parameter() -> None:
    client = before_client_hello()
    hello = client.client_hello()
    block = ext.write_extensions(hello.extensions)[2:] + uint16(43) + vector(2, ext.write_client_versions())
    body = replace(hello, extensions={}).encode()[4:-2] + vector(2, block)
    with refused(client, *_ILLEGAL):
        client.send(write_message(HandshakeType.CLIENT_HELLO, body))


def test_pre_shared_key_must_be_the_last_extension_and_is_declined_by_a_server_without_tickets() -> None:
    client = before_client_hello()
    hello = client.client_hello()
    psk = ext.write_offered_psk(b"ticket", 0, bytes(48))
    client.send(replace(hello, extensions=hello.extensions | {45: b"\1\1", 41: psk}).encode())
    client.receive()
    assert list(ServerHello.parse(client.messages[0].body).extensions) == [43, 51]
    client = before_client_hello()
    with refused(client, *_ILLEGAL) as caught:
        client.send(replace(hello, extensions={41: psk, 45: b"\1\1"} | hello.extensions).encode())
    assert "pre_shared_key is not the last extension" in str(caught.value)


def test_unknown_extensions_and_code_points_are_ignored() -> None:
    client = before_client_hello()
    hello = client.client_hello(cipher_suites=(0x0A0A, 0x1302))  # RFC 8701's grease
    extensions = {0x1A1A: b"\0"} | replaced(
        hello.extensions,
        supported_groups=uint16_list((0x2A2A, 0xFEC4)),
        signature_algorithms=uint16_list((0x3A3A, 0x0906)),
        supported_versions=b"\x04\x4a\x4a\x03\x04",
        key_share=key_shares((0x2A2A, b"\0"), (0xFEC4, client.share.public)),
    )
    client.send(replace(hello, extensions=extensions).encode())
    client.receive()
    assert client.messages[0].type == HandshakeType.SERVER_HELLO


def test_a_hello_that_shares_its_record_with_more_is_an_unexpected_message() -> None:
    client = before_client_hello()
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        client.sent.append(client.client_hello().encode())
        client.say(22, client.sent[0] + forged_chain())
    assert "in the record that ended an epoch" in str(caught.value)


# -- ALPN and server name ---------------------------------------------------------------------------------------------


def _alpn(offered: tuple[bytes, ...] | None, **config: Any) -> bytes | None:
    client = before_client_hello(**config)
    hello = client.client_hello()
    if offered is not None:
        hello = replace(hello, extensions=hello.extensions | {16: ext.write_alpn(offered)})
    client.send(hello.encode())
    client.receive()
    content = EncryptedExtensions.parse(client.messages[1].body).extensions.get(16)
    if content is None:
        return None
    (chosen,) = ext.read_alpn(content)
    return chosen


def test_the_servers_order_of_protocols_decides() -> None:
    assert _alpn((b"one", b"two"), alpn=(b"two", b"one")) == b"two"
    assert _alpn((b"x", b"one"), alpn=(b"two", b"one")) == b"one"


def test_a_client_or_a_server_without_protocols_goes_without() -> None:
    assert _alpn(None, alpn=(b"one",)) is None
    assert _alpn((b"one",)) is None


def test_a_client_without_a_protocol_in_common_is_refused() -> None:
    offered = ext.write_alpn((b"two",))
    refusal = (NegotiationRefused, Alert.NO_APPLICATION_PROTOCOL)
    _hello_refused(*refusal, config={"alpn": (b"one",)}, alpn=offered)
    _hello_refused(*refusal, config={"alpn": (b"one",), "require_alpn": True})


def test_the_server_name_reaches_the_owner() -> None:
    client = before_client_hello()
    hello = client.client_hello()
    hello = replace(hello, extensions=hello.extensions | {0: ext.write_server_name("web.example")})
    client.send(hello.encode())
    client.receive()
    client.send(forged_chain(*CLIENT.chain))
    client.send(client.certificate_verify(CLIENT))
    client.send(client.finished())
    (event,) = client.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert event.server_name == "web.example"
