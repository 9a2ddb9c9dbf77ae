"""HelloRetryRequest (RFC 8446 section 4.1.4) at the client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import pqtls
from pqtls import extensions as ext
from pqtls.errors import Alert, DecodeError, PeerError, ProtocolViolation
from pqtls.extensions import ExtensionType, KeyShareEntry
from pqtls.groups import X25519MLKEM768, X25519MLKEM1024
from pqtls.messages import EncryptedExtensions
from pqtls.profiles import QBITEL
from pqtls.suites import TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384
from pqtls.wire import uint16, vector
from tests.support.scripted_peer import certificate_request, forged_chain, refused, replaced
from tests.support.toward_client import SERVER, before_server_hello

TWO_GROUPS = replace(QBITEL, name="two groups", groups=(X25519MLKEM1024, X25519MLKEM768))
TWO_SUITES = replace(QBITEL, name="two suites", cipher_suites=(TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256))
_ILLEGAL = (ProtocolViolation, Alert.ILLEGAL_PARAMETER)


def test_a_retry_for_another_group_is_answered_and_the_handshake_completes() -> None:
    server = before_server_hello(profiles=(TWO_GROUPS,))
    first = server.hello
    server.send_retry(server.retry({ExtensionType.KEY_SHARE: uint16(0x11EC)}))
    assert [share.group for share in ext.read_client_key_shares(server.hello.extensions[51])] == [0x11EC]
    assert replace(server.hello, extensions={}) == replace(first, extensions={})
    assert replaced(server.hello.extensions, key_share=None) == replaced(first.extensions, key_share=None)
    server.send_server_hello(X25519MLKEM768)
    server.send(EncryptedExtensions({}).encode(), certificate_request(), forged_chain(*SERVER.chain))
    server.send(server.certificate_verify(SERVER))
    server.send(server.finished())
    assert server.connection.handshake_complete
    (event,) = server.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert event.group == "X25519MLKEM768"


def test_a_retry_with_a_cookie_alone_brings_the_cookie_back_with_the_same_share() -> None:
    server = before_server_hello()
    first = server.hello
    cookie = vector(2, b"a cookie")
    server.send_retry(server.retry({ExtensionType.COOKIE: cookie}))
    assert server.hello.extensions == first.extensions | {44: cookie}
    server.finish_handshake(SERVER)
    assert server.connection.handshake_complete


@pytest.mark.parametrize(
    ("extensions", "error", "alert"),
    [
        ({}, *_ILLEGAL),
        ({51: uint16(0xFEC4)}, *_ILLEGAL),
        ({51: uint16(0x001D)}, *_ILLEGAL),
        ({51: b"\x11"}, DecodeError, Alert.DECODE_ERROR),
        ({51: b"\x11\xec\x00"}, DecodeError, Alert.DECODE_ERROR),
        ({44: b"\x00\x00"}, DecodeError, Alert.DECODE_ERROR),
        ({44: b"\x00\x02x"}, DecodeError, Alert.DECODE_ERROR),
        ({10: b""}, *_ILLEGAL),
        ({0xABCD: b""}, ProtocolViolation, Alert.UNSUPPORTED_EXTENSION),
        ({43: uint16(0x0303)}, *_ILLEGAL),
    ],
    ids=str,
)
def test_a_retry_that_changes_nothing_or_asks_for_what_was_not_offered_is_refused(
    extensions: ext.Extensions, error: type[PeerError], alert: Alert
) -> None:
    server = before_server_hello(profiles=(TWO_GROUPS,))
    with refused(server, error, alert):
        server.send(server.retry(extensions))


@pytest.mark.parametrize("changes", [{"cipher_suite": 0x1303}, {"session_id_echo": b"x"}])
def test_the_fields_of_a_retry_are_checked_as_those_of_a_server_hello(changes: dict[str, Any]) -> None:
    server = before_server_hello(profiles=(TWO_GROUPS,))
    with refused(server, *_ILLEGAL):
        server.send(server.retry({51: uint16(0x11EC)}, **changes))


def test_a_second_retry_is_an_unexpected_message() -> None:
    server = before_server_hello(profiles=(TWO_GROUPS,))
    retry = server.retry({51: uint16(0x11EC)})
    server.send_retry(retry)
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        server.send(retry)
    assert "a second HelloRetryRequest" in str(caught.value)


def test_another_message_after_a_retry_is_an_unexpected_message() -> None:
    server = before_server_hello(profiles=(TWO_GROUPS,))
    server.send_retry(server.retry({51: uint16(0x11EC)}))
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        server.send(EncryptedExtensions({}).encode())


def test_a_server_that_answers_with_the_first_group_after_a_retry_is_refused() -> None:
    server = before_server_hello(profiles=(TWO_GROUPS,))
    server.send_retry(server.retry({51: uint16(0x11EC)}))
    hello = server.server_hello(X25519MLKEM768)
    wrong = replaced(hello.extensions, key_share=KeyShareEntry(0xFEC4, bytes(1600)).encode())
    with refused(server, *_ILLEGAL):
        server.send(replace(hello, extensions=wrong).encode())


def test_a_server_that_changes_its_suite_after_a_retry_is_refused() -> None:
    server = before_server_hello(profiles=(TWO_SUITES,))
    server.send_retry(server.retry({44: vector(2, b"c")}))
    with refused(server, *_ILLEGAL) as caught:
        server.send(server.server_hello(cipher_suite=0x1301).encode())
    assert "changed its cipher suite" in str(caught.value)
