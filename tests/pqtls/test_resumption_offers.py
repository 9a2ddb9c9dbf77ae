"""Offers of tickets that a client of ours would not make: wrong binders, missing modes, lists that do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import pqtls
from pqtls.errors import Alert, DecodeError, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.key_schedule import EarlySecret
from pqtls.messages import ServerHello
from pqtls.transcript import Transcript
from pqtls.wire import uint16, vector
from tests.support import pki
from tests.support.resumption import Mesh, meet, with_psk
from tests.support.scripted_peer import ScriptedClient, refused

# -- binders, modes, and malformed offers ---------------------------------------------------------------------------


def _script(mesh: Mesh) -> ScriptedClient:
    return ScriptedClient(pqtls.ServerConnection(mesh.server()))


def test_a_wrong_binder_is_a_decrypt_error_and_does_not_use_the_ticket_up() -> None:
    mesh = Mesh()
    session = mesh.session()
    client = _script(mesh)
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR) as caught:
        client.send(with_psk(client.client_hello(), session, binder=bytes(48)).encode())
    assert "binder" in str(caught.value)
    assert meet(mesh.client(session), mesh.server()).resumed


@pytest.mark.parametrize("size", [32, 47, 49, 255])
def test_a_binder_of_another_length_is_a_decrypt_error(size: int) -> None:
    mesh = Mesh()
    client = _script(mesh)
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
        client.send(with_psk(client.client_hello(), mesh.session(), binder=bytes(size)).encode())


def test_a_binder_over_another_hello_does_not_hold() -> None:
    mesh = Mesh()
    session = mesh.session()
    client = _script(mesh)
    hello = with_psk(client.client_hello(), session)
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
        client.send(replace(hello, random=bytes(32)).encode())


def test_a_ticket_without_modes_is_a_missing_extension() -> None:
    mesh = Mesh()
    client = _script(mesh)
    with refused(client, ProtocolViolation, Alert.MISSING_EXTENSION) as caught:
        client.send(with_psk(client.client_hello(), mesh.session(), modes=None).encode())
    assert "psk_key_exchange_modes" in str(caught.value)


def test_a_client_of_psk_ke_alone_is_not_resumed_and_gets_no_ticket() -> None:
    mesh = Mesh()
    session = mesh.session()
    client = _script(mesh)
    client.send(with_psk(client.client_hello(), session, modes=b"\x01\x00").encode())
    client.receive()
    assert [message.type for message in client.messages] == [2, 8, 13, 11, 15, 20]
    assert ExtensionType.PRE_SHARED_KEY not in _server_hello(client).extensions
    assert meet(mesh.client(session), mesh.server()).resumed, "the ticket was not looked at"


def test_a_client_that_states_no_modes_gets_no_ticket() -> None:
    mesh = Mesh()
    client = _script(mesh)
    client.finish_handshake(pki.credential(pki.leaf("client")))
    count = len(client.messages)
    client.receive()
    assert len(client.messages) == count
    assert client.connection.handshake_complete


def _server_hello(client: ScriptedClient) -> Any:
    return ServerHello.parse(client.messages[0].body)


def _offer(identities: bytes, binders: bytes) -> bytes:
    return vector(2, identities) + vector(2, binders)


_IDENTITY = vector(2, b"ticket") + bytes(4)
_BINDER = vector(1, bytes(48))


@pytest.mark.parametrize(
    ("content", "error", "alert"),
    [
        (_offer(_IDENTITY, _BINDER * 2), ProtocolViolation, Alert.ILLEGAL_PARAMETER),
        (_offer(_IDENTITY * 2, _BINDER), ProtocolViolation, Alert.ILLEGAL_PARAMETER),
        (_offer(b"", _BINDER), DecodeError, Alert.DECODE_ERROR),
        (_offer(_IDENTITY, b""), DecodeError, Alert.DECODE_ERROR),
        (_offer(vector(2, b"") + bytes(5), _BINDER), DecodeError, Alert.DECODE_ERROR),
        (_offer(_IDENTITY[:-1], _BINDER), DecodeError, Alert.DECODE_ERROR),
        (_offer(_IDENTITY, vector(1, bytes(31)) + b"xx"), DecodeError, Alert.DECODE_ERROR),
        (_offer(_IDENTITY, _BINDER) + b"\0", DecodeError, Alert.DECODE_ERROR),
    ],
    ids=["two binders", "two tickets", "no ticket", "no binder", "empty ticket", "half an age", "short", "left over"],
)
def test_an_offer_that_does_not_fit_together_is_refused(
    content: bytes, error: type[ProtocolViolation], alert: Alert
) -> None:
    client = _script(Mesh())
    hello = client.client_hello()
    extensions = hello.extensions | {
        ExtensionType.PSK_KEY_EXCHANGE_MODES: b"\1\1",
        ExtensionType.PRE_SHARED_KEY: content,
    }
    with refused(client, error, alert):
        client.send(replace(hello, extensions=extensions).encode())


def test_the_second_of_two_tickets_is_taken_where_the_first_is_unknown_and_a_fifth_never() -> None:
    for position, resumes in ((1, True), (3, True), (4, False)):
        mesh = Mesh()
        session = mesh.session()
        client = _script(mesh)
        client.send(_hello_with_tickets(client, session, position))
        # The script has no mind for resumed keys, so only the plain ServerHello is looked at.
        data = client.connection.data_to_send()
        length = int.from_bytes(data[3:5], "big")
        hello = ServerHello.parse(data[9 : 5 + length])
        expected = uint16(position) if resumes else None
        assert hello.extensions.get(ExtensionType.PRE_SHARED_KEY) == expected


def _hello_with_tickets(client: ScriptedClient, session: pqtls.Session, before: int) -> bytes:
    """A hello whose last ticket is the session's, behind `before` unknown ones."""
    hello = client.client_hello()
    suite = session.facts.suite
    identities = _IDENTITY * before + vector(2, session.ticket) + bytes(4)
    blank = vector(2, vector(1, bytes(suite.hash_length)) * (before + 1))
    extensions = hello.extensions | {ExtensionType.PSK_KEY_EXCHANGE_MODES: b"\1\1"}
    raw = replace(hello, extensions=extensions | {ExtensionType.PRE_SHARED_KEY: vector(2, identities) + blank}).encode()
    digest = Transcript(suite.hash_name, raw[: -len(blank)]).digest()
    early = EarlySecret.with_psk(suite, pki.client_config().provider, session.psk)
    binders = vector(1, bytes(suite.hash_length)) * before + vector(1, early.binder(digest))
    return raw[: -len(blank)] + vector(2, binders)
