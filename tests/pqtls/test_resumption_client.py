"""Resumption as a client decides it: which sessions it offers, and which answers it believes."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

import pqtls
from pqtls.errors import Alert, CertificateRefused, IdentityRefused, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.groups import X25519MLKEM768
from pqtls.messages import ClientHello, EncryptedExtensions
from pqtls.profiles import COMPAT, HYBRID_L5, QBITEL
from pqtls.suites import TLS_AES_128_GCM_SHA256
from pqtls.wire import uint16, vector
from tests.support import pki
from tests.support.resumption import RECORD_HEADER, Mesh, meet
from tests.support.scripted_peer import ScriptedServer, refused

SECOND = datetime.timedelta(seconds=1)


def _hello_record(config: pqtls.ClientConfig) -> bytes:
    return pqtls.ClientConnection(config).data_to_send()


def _offers_a_session(config: pqtls.ClientConfig) -> bool:
    hello = ClientHello.parse(_hello_record(config)[RECORD_HEADER + 4 :])
    return ExtensionType.PRE_SHARED_KEY in hello.extensions


# -- when it must not: the client -----------------------------------------------------------------------------------


def test_a_client_offers_no_session_that_its_server_could_not_be_trusted_for_today() -> None:
    mesh = Mesh()
    session = mesh.session()

    def refuse(_uri: str) -> None:
        raise IdentityRefused("no longer", reason="policy", alert=Alert.ACCESS_DENIED)

    assert _offers_a_session(mesh.client(session))
    assert not _offers_a_session(mesh.client(session, trust=pki.trust(pki.root("Another Root"))))
    assert not _offers_a_session(mesh.client(session, trust=pki.trust_with_crl(pki.leaf("server"))))
    assert not _offers_a_session(mesh.client(session, accept_identity=refuse))
    assert not _offers_a_session(mesh.client(session, profiles=(HYBRID_L5,)))
    assert _offers_a_session(mesh.client(session, profiles=(HYBRID_L5, QBITEL)))


def test_a_client_asks_its_owner_before_it_offers_a_session_and_again_when_the_server_takes_it() -> None:
    mesh = Mesh()
    asked: list[str] = []
    again = meet(mesh.client(mesh.session(), accept_identity=asked.append), mesh.server())
    assert again.resumed
    assert asked == [pki.identity("server")] * 2


def test_a_client_whose_owner_changes_its_mind_in_between_refuses_the_resumed_server() -> None:
    mesh = Mesh()
    answers = iter((None, IdentityRefused("no longer", reason="policy", alert=Alert.ACCESS_DENIED)))

    def decide(_uri: str) -> None:
        refusal = next(answers)
        if refusal is not None:
            raise refusal

    with pytest.raises(CertificateRefused) as caught:
        meet(mesh.client(mesh.session(), accept_identity=decide), mesh.server())
    assert (caught.value.alert, caught.value.reason) == (Alert.ACCESS_DENIED, "policy")


def test_a_client_offers_a_session_until_its_lifetime_is_over_and_not_from_before_it_came() -> None:
    mesh = Mesh()
    session = mesh.session()
    for seconds, offers in ((-1, False), (0, True), (session.lifetime - 1, True), (session.lifetime, False)):
        mesh.clock.now = pki.NOW + seconds * SECOND
        assert _offers_a_session(mesh.client(session)) is offers


def test_a_client_offers_no_session_a_second_after_its_servers_certificate_ended() -> None:
    mesh = Mesh()
    end = pki.NOW + datetime.timedelta(hours=1)
    session = replace(mesh.session(), lifetime=7200)
    session = replace(session, facts=replace(session.facts, valid_until=end))
    mesh.clock.now = end
    assert _offers_a_session(mesh.client(session))
    mesh.clock.now = end + SECOND
    assert not _offers_a_session(mesh.client(session))


def test_a_server_that_selects_a_ticket_that_was_not_offered_is_an_illegal_parameter() -> None:
    mesh = Mesh()
    server = ScriptedServer(pqtls.ClientConnection(mesh.client(mesh.session())))
    hello = server.server_hello()
    with refused(server, ProtocolViolation, Alert.ILLEGAL_PARAMETER) as caught:
        server.send(replace(hello, extensions=hello.extensions | {ExtensionType.PRE_SHARED_KEY: uint16(1)}).encode())
    assert "was not offered" in str(caught.value)


def test_a_server_that_selects_a_ticket_where_none_was_offered_is_an_unsupported_extension() -> None:
    server = ScriptedServer(pqtls.ClientConnection(Mesh().client()))
    hello = server.server_hello()
    with refused(server, ProtocolViolation, Alert.UNSUPPORTED_EXTENSION):
        server.send(replace(hello, extensions=hello.extensions | {ExtensionType.PRE_SHARED_KEY: uint16(0)}).encode())


def test_a_server_that_resumes_with_another_suite_is_an_illegal_parameter() -> None:
    mesh = Mesh()
    session = mesh.session(profiles=(COMPAT,))
    config = mesh.client(session, profiles=(COMPAT,))
    server = ScriptedServer(pqtls.ClientConnection(config), TLS_AES_128_GCM_SHA256)
    hello = server.server_hello(X25519MLKEM768)
    with refused(server, ProtocolViolation, Alert.ILLEGAL_PARAMETER):
        server.send(replace(hello, extensions=hello.extensions | {ExtensionType.PRE_SHARED_KEY: uint16(0)}).encode())


def test_a_server_that_resumes_without_a_key_exchange_is_a_missing_extension() -> None:
    mesh = Mesh()
    server = ScriptedServer(pqtls.ClientConnection(mesh.client(mesh.session())))
    hello = server.server_hello()
    extensions = hello.extensions | {ExtensionType.PRE_SHARED_KEY: uint16(0)}
    del extensions[ExtensionType.KEY_SHARE]
    with refused(server, ProtocolViolation, Alert.MISSING_EXTENSION):
        server.send(replace(hello, extensions=extensions).encode())


def test_a_server_that_claims_a_ticket_without_its_secret_is_found_out() -> None:
    mesh = Mesh()
    server = ScriptedServer(pqtls.ClientConnection(mesh.client(mesh.session())))
    hello = server.server_hello()
    server.send(replace(hello, extensions=hello.extensions | {ExtensionType.PRE_SHARED_KEY: uint16(0)}).encode())
    server.use_handshake_keys()  # of a key schedule without the session's secret, which the server does not have
    with pytest.raises(ProtocolViolation) as caught:
        server.send(EncryptedExtensions({}).encode())
    assert caught.value.alert is Alert.BAD_RECORD_MAC


def test_a_server_that_was_never_shown_a_certificate_leaves_no_session() -> None:
    server = ScriptedServer(pqtls.ClientConnection(Mesh().client()))
    server.finish_handshake(pki.credential(pki.leaf("server")), request=False)
    (event,) = server.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert not event.client_authenticated
    body = bytes((0, 0, 14, 16)) + bytes(4) + vector(1, b"n") + vector(2, b"t") + vector(2, b"")
    server.send(bytes((4,)) + len(body).to_bytes(3, "big") + body)
    assert server.connection.events() == []


def test_an_anonymous_client_says_that_tickets_are_of_no_use_to_it_and_drops_one_that_comes() -> None:
    server = ScriptedServer(pqtls.ClientConnection(Mesh().client(credential=None)))
    assert ExtensionType.PSK_KEY_EXCHANGE_MODES not in server.hello.extensions
    server.finish_handshake(pki.credential(pki.leaf("server")))
    (event,) = server.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert not event.client_authenticated
    body = bytes((0, 0, 14, 16)) + bytes(4) + vector(1, b"n") + vector(2, b"t") + vector(2, b"")
    server.send(bytes((4,)) + len(body).to_bytes(3, "big") + body)
    assert server.connection.events() == []
