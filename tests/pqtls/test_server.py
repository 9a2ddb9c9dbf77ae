"""The server against a scripted client: its states, what it selects, and its HelloRetryRequest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import pqtls
from pqtls import extensions as ext
from pqtls import server
from pqtls.errors import Alert, DecodeError, ProtocolViolation
from pqtls.extensions import ExtensionType, KeyShareEntry
from pqtls.framing import HandshakeType
from pqtls.groups import X25519MLKEM768, X25519MLKEM1024, generate
from pqtls.messages import (
    CertificateRequest,
    CertificateVerify,
    EncryptedExtensions,
    ServerHello,
    encode_finished,
    encode_key_update,
)
from pqtls.profiles import COMPAT, QBITEL
from pqtls.provider_cryptography import PROVIDER
from pqtls.record import ContentType
from pqtls.signatures import ECDSA_SECP384R1_SHA384, MLDSA87
from pqtls.suites import TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, CipherSuite
from pqtls.wire import uint16, uint16_list, vector
from tests.support import pki
from tests.support.recorded import split_records
from tests.support.scripted_peer import (
    ScriptedClient,
    certificate_request,
    forged_chain,
    plain_record,
    refused,
    replaced,
)
from tests.support.toward_server import (
    CLIENT,
    before_certificate,
    before_client_hello,
    before_finished,
    before_second_hello,
    before_verify,
    key_shares,
    second_hello,
)

_ILLEGAL = (ProtocolViolation, Alert.ILLEGAL_PARAMETER)
_PROFILE_OF_TWO = replace(QBITEL, groups=(X25519MLKEM1024, X25519MLKEM768))

_STATES: dict[str, tuple[Callable[[], ScriptedClient], int, str]] = {
    "start": (before_client_hello, HandshakeType.CLIENT_HELLO, "client_hello"),
    "second hello": (before_second_hello, HandshakeType.CLIENT_HELLO, "client_hello"),
    "certificate": (before_certificate, HandshakeType.CERTIFICATE, "certificate"),
    "verify": (before_verify, HandshakeType.CERTIFICATE_VERIFY, "certificate_verify"),
    "finished": (before_finished, HandshakeType.FINISHED, "finished"),
}


def test_a_right_client_completes_the_handshake() -> None:
    client = before_client_hello()
    client.finish_handshake(CLIENT)
    (event,) = client.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert (event.peer_identity, event.group) == (pki.identity("client"), "X25519MLKEM1024")
    assert [message.type for message in client.messages] == [2, 8, 13, 11, 15, 20]
    hello, extensions, request = client.messages[:3]
    answer = ServerHello.parse(hello.body)
    assert (answer.legacy_version, answer.cipher_suite, answer.compression_method) == (0x0303, 0x1302, 0)
    assert list(answer.extensions) == [43, 51]
    assert EncryptedExtensions.parse(extensions.body).extensions == {}
    assert CertificateRequest.parse(request.body) == CertificateRequest(
        b"", {13: b"\x00\x02\x09\x06", 47: ext.write_authorities((pki.root().certificate.subject.public_bytes(),))}
    )
    flight = client.sent[:-3]
    client.sent = flight[:-1]
    assert client.messages[-1].raw == encode_finished(client.secrets.server.finished(client.digest()))


@pytest.mark.parametrize("suite", [TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256], ids=lambda suite: suite.name)
def test_each_suite_of_compat_completes_the_handshake(suite: CipherSuite) -> None:
    client = ScriptedClient(pqtls.ServerConnection(pki.server_config(profiles=(COMPAT,))), X25519MLKEM768, suite)
    client.finish_handshake(CLIENT)
    (event,) = client.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert event.cipher_suite == suite.name


def test_the_servers_order_of_suites_and_groups_decides() -> None:
    client = ScriptedClient(pqtls.ServerConnection(pki.server_config(profiles=(COMPAT,))), X25519MLKEM768)
    client.send(client.client_hello(cipher_suites=(0x1303, 0x1301, 0x1302)).encode())
    client.receive()
    assert ServerHello.parse(client.messages[0].body).cipher_suite == 0x1302
    client = before_client_hello(profiles=(_PROFILE_OF_TWO,))
    weaker = generate(X25519MLKEM768, PROVIDER)
    hello = client.client_hello()
    shares = (KeyShareEntry(0x11EC, weaker.public), KeyShareEntry(0xFEC4, client.share.public))
    extensions = replaced(
        hello.extensions, supported_groups=uint16_list((0x11EC, 0xFEC4)), key_share=ext.write_client_key_shares(shares)
    )
    client.send(replace(hello, extensions=extensions).encode())
    client.receive()
    assert ext.read_key_share_entry(ServerHello.parse(client.messages[0].body).extensions[51]).group == 0xFEC4


def test_the_session_id_is_echoed_and_a_change_cipher_spec_follows_the_first_message() -> None:
    """RFC 8446 appendix D.4: a client that sends a session id may stand behind a middlebox."""
    connection = pqtls.ServerConnection(pki.server_config())
    hello = ScriptedClient(connection).client_hello(session_id=b"for a middlebox")
    connection.receive_data(plain_record(ContentType.HANDSHAKE, hello.encode()))
    records = split_records(connection.data_to_send())
    assert [record[0] for record in records[:3]] == [22, 20, 23]
    assert records[1] == bytes.fromhex("140303000101")
    assert ServerHello.parse(records[0][9:]).session_id_echo == b"for a middlebox"


def test_a_client_without_a_session_id_gets_no_change_cipher_spec() -> None:
    connection = pqtls.ServerConnection(pki.server_config())
    connection.receive_data(plain_record(ContentType.HANDSHAKE, ScriptedClient(connection).client_hello().encode()))
    assert 20 not in [record[0] for record in split_records(connection.data_to_send())]


@pytest.mark.parametrize("state", _STATES)
def test_any_other_message_in_any_state_is_an_unexpected_message(state: str) -> None:
    make, wanted, name = _STATES[state]
    bodies = {
        HandshakeType.CLIENT_HELLO: ScriptedClient(make().connection).client_hello().encode(),
        HandshakeType.SERVER_HELLO: ServerHello(0x0303, bytes(32), b"", 0x1302, 0, {}).encode(),
        HandshakeType.CERTIFICATE: forged_chain(*CLIENT.chain),
        HandshakeType.CERTIFICATE_REQUEST: certificate_request(),
        HandshakeType.CERTIFICATE_VERIFY: CertificateVerify(0x0906, b"x").encode(),
        HandshakeType.FINISHED: encode_finished(bytes(48)),
        HandshakeType.KEY_UPDATE: encode_key_update(False),
    }
    for kind in (1, 2, 4, 5, 8, 11, 13, 15, 20, 24, 99):
        if kind == wanted:
            continue
        client = make()
        with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
            client.send(bodies.get(kind, bytes((kind, 0, 0, 0))))  # type: ignore[call-overload]
        assert f"came where {name} was expected" in str(caught.value)


@pytest.mark.parametrize("state", ["start", "second hello", "certificate", "verify"])
def test_a_message_that_cannot_be_parsed_is_a_decode_error(state: str) -> None:
    make, wanted, _ = _STATES[state]
    client = make()
    with refused(client, DecodeError, Alert.DECODE_ERROR):
        client.send(bytes((wanted, 0, 0, 1, 0)))


# -- HelloRetryRequest ------------------------------------------------------------------------------------------------


def test_a_client_with_a_share_of_another_group_is_asked_for_ours() -> None:
    client = before_second_hello()
    retry = ServerHello.parse(client.messages[0].body)
    assert retry.is_retry
    assert retry.extensions == {43: uint16(0x0304), 51: uint16(0xFEC4)}
    client.send(second_hello(client).encode())
    client.receive()
    client.send(forged_chain(*CLIENT.chain))
    client.send(client.certificate_verify(CLIENT))
    client.send(client.finished())
    assert client.connection.handshake_complete


def test_a_client_without_any_share_is_asked_for_one() -> None:
    client = before_client_hello()
    hello = client.client_hello()
    client.send(replace(hello, extensions=replaced(hello.extensions, key_share=b"\0\0")).encode())
    client.receive()
    client.send(hello.encode())
    client.receive()
    assert [message.type for message in client.messages] == [2, 2, 8, 13, 11, 15, 20]


def test_what_a_second_hello_may_change_is_ignored() -> None:
    client = before_second_hello()
    client.send(second_hello(client, padding=bytes(7)).encode())
    client.receive()
    assert client.messages[1].type == HandshakeType.SERVER_HELLO


@pytest.mark.parametrize(
    "fields",
    [
        {"legacy_version": 0x0301},
        {"random": bytes(32)},
        {"session_id": b"x"},
        {"cipher_suites": (0x1302, 0x1301)},
    ],
    ids=str,
)
def test_a_second_hello_with_another_field_is_an_illegal_parameter(fields: dict[str, Any]) -> None:
    client = before_second_hello()
    with refused(client, *_ILLEGAL) as caught:
        client.send(replace(second_hello(client), **fields).encode())
    assert "differs from the first where it must not" in str(caught.value)


@pytest.mark.parametrize(
    "extensions",
    [
        {"server_name": ext.write_server_name("x")},
        {"supported_groups": uint16_list((0xFEC4,))},
        {"signature_algorithms": uint16_list((0x0906, 0x0503))},
        {"early_data": b""},
        {"cookie": vector(2, b"none was sent")},
    ],
    ids=str,
)
def test_a_second_hello_with_another_extension_is_an_illegal_parameter(extensions: dict[str, bytes]) -> None:
    client = before_second_hello()
    with refused(client, *_ILLEGAL) as caught:
        client.send(second_hello(client, **extensions).encode())
    assert "differs from the first where it must not" in str(caught.value)


def test_a_second_hello_with_other_shares_than_the_one_asked_for_is_an_illegal_parameter() -> None:
    client = before_second_hello()
    weaker = generate(X25519MLKEM768, PROVIDER).public
    for shares in (
        key_shares(),
        key_shares((0x11EC, weaker)),
        key_shares((0x11EC, weaker), (0xFEC4, client.share.public)),
    ):
        client = before_second_hello()
        with refused(client, *_ILLEGAL) as caught:
            client.send(second_hello(client, key_share=shares).encode())
        assert "exactly one share of X25519MLKEM1024" in str(caught.value)


def test_a_prepared_request_is_the_one_made_anew_and_few_are_kept() -> None:
    for number in range(20):
        names = (bytes((number,)) * 5, b"another")
        for schemes in ((MLDSA87,), (MLDSA87, ECDSA_SECP384R1_SHA384)):
            extensions = {
                ExtensionType.SIGNATURE_ALGORITHMS: ext.write_code_points(tuple(one.code_point for one in schemes)),
                ExtensionType.CERTIFICATE_AUTHORITIES: ext.write_authorities(names),
            }
            for _ in range(2):
                assert server._certificate_request(schemes, names) == CertificateRequest(b"", extensions).encode()
    assert server._certificate_request.cache_info().currsize <= 8


def test_servers_in_one_process_ask_each_for_its_own_authorities() -> None:
    for trust in (pki.trust(), pki.trust(pki.root(), pki.root("Another Root")), pki.trust()):
        peer = before_certificate(trust=trust)
        (request,) = [one for one in peer.messages if one.type == HandshakeType.CERTIFICATE_REQUEST]
        content = CertificateRequest.parse(request.body).extensions[ExtensionType.CERTIFICATE_AUTHORITIES]
        assert ext.read_authorities(content) == trust.names
