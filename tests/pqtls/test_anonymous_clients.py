"""Clients without a certificate at a server that serves them too: who is nobody, and who would only like to be."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import pqtls
from pqtls import ClientAuthentication
from pqtls.certificates import Purpose
from pqtls.errors import Alert, CertificateRefused, DecodeError, IdentityRefused, PeerError, ProtocolViolation
from pqtls.extensions import PSK_DHE_KE, ExtensionType
from pqtls.framing import HandshakeType
from pqtls.messages import EncryptedExtensions, encode_finished
from pqtls.record import ContentType
from pqtls.wire import vector
from tests.support import pki
from tests.support.recorded import split_records
from tests.support.resumption import Mesh, meet
from tests.support.scripted_peer import ScriptedClient, certificate_request, forged_chain, refused
from tests.support.toward_client import SERVER, before_server_hello
from tests.support.toward_client import before_request as before_servers_request
from tests.support.toward_server import CLIENT, before_certificate, before_finished, before_verify

OPTIONAL = {"client_authentication": ClientAuthentication.OPTIONAL}
_UNEXPECTED = (ProtocolViolation, Alert.UNEXPECTED_MESSAGE)


def _completed(connection: pqtls.Connection) -> pqtls.HandshakeCompleted:
    (event,) = connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    return event


def _anonymous(**changes: Any) -> ScriptedClient:
    """A client that has shown no certificate and has not confirmed the handshake yet."""
    client = before_certificate(**(OPTIONAL | changes))
    client.send(forged_chain())
    return client


def _established_anonymously() -> ScriptedClient:
    client = _anonymous()
    client.send(client.finished())
    client.use_application_keys()
    client.connection.events()
    return client


# -- who is served, and as whom -------------------------------------------------------------------------------------


def test_a_client_without_a_certificate_is_served_as_nobody_and_both_ends_know_it() -> None:
    client, server = (
        pqtls.ClientConnection(pki.client_config(credential=None)),
        pqtls.ServerConnection(pki.server_config(**OPTIONAL)),
    )
    pki.pump(client, server)
    at_client, at_server = _completed(client), _completed(server)
    assert (at_server.peer_identity, at_server.peer_chain, at_server.peer_certificate) == ("", (), b"")
    assert (at_server.signature_scheme, at_server.resumed, at_server.client_authenticated) == ("", False, False)
    assert (at_server.profile, at_server.group) == ("qbitel", "X25519MLKEM1024")
    assert at_client.peer_identity == pki.identity("server")
    assert not at_client.client_authenticated
    client.send_data(b"who am I?")
    server.send_data(b"nobody")
    pki.pump(client, server)
    assert server.events() == [pqtls.ApplicationData(b"who am I?")]
    assert client.events() == [pqtls.ApplicationData(b"nobody")]
    assert client.export_keying_material("EXPORTER-test", b"", 32) == server.export_keying_material(
        "EXPORTER-test", b"", 32
    )


def test_a_client_with_a_certificate_is_known_by_it_at_the_same_server() -> None:
    met = meet(pki.client_config(), pki.server_config(**OPTIONAL))
    assert met.at_server.peer_identity == pki.identity("client")
    assert met.at_server.peer_certificate == pki.leaf("client").der
    assert met.at_server.client_authenticated
    assert met.at_client.client_authenticated


def test_the_owner_is_asked_about_identities_and_not_about_nobody() -> None:
    asked: list[str] = []

    def refuse(uri: str) -> None:
        asked.append(uri)
        raise IdentityRefused(f"{uri} may not come in")

    server = pki.server_config(accept_identity=refuse, **OPTIONAL)
    assert meet(pki.client_config(credential=None), server).at_server.peer_identity == ""
    assert asked == []
    with pytest.raises(CertificateRefused) as caught:
        meet(pki.client_config(), server)
    assert caught.value.alert is Alert.ACCESS_DENIED
    assert asked == [pki.identity("client")]


def test_a_server_that_requires_a_certificate_says_so_and_its_client_knows_what_it_lacks() -> None:
    client = pqtls.ClientConnection(pki.client_config(credential=None))
    server = pqtls.ServerConnection(pki.server_config())
    with pytest.raises(CertificateRefused, match="has no certificate") as caught:
        pki.pump(client, server)
    assert (caught.value.alert, caught.value.reason) == (Alert.CERTIFICATE_REQUIRED, "no_certificate")
    assert server.events() == []
    with pytest.raises(pqtls.AlertReceived, match=r"certificate_required \(the server demands a certificate") as heard:
        client.receive_data(server.data_to_send())
    assert heard.value.alert is Alert.CERTIFICATE_REQUIRED


# -- a bad certificate is no missing one ------------------------------------------------------------------------------


def _for_servers_only() -> bytes:
    return pki.make_certificate(
        issuer=pki.root(), subject="x", names=(pki.uri("spiffe://a/b"),), purposes=(Purpose.SERVER.value,)
    ).der


def _expired() -> bytes:
    return pki.make_certificate(
        issuer=pki.root(),
        subject="x",
        names=(pki.uri("spiffe://a/b"),),
        not_before=pki.NOW - 2 * pki.DAY,
        not_after=pki.NOW - datetime.timedelta(seconds=1),
    ).der


@pytest.mark.parametrize(
    ("make", "alert", "reason"),
    [
        (lambda: b"junk", Alert.BAD_CERTIFICATE, "unreadable"),
        (lambda: pki.leaf("client", "Other Root").der, Alert.UNKNOWN_CA, "unknown_root"),
        (_for_servers_only, Alert.BAD_CERTIFICATE, "wrong_usage"),
        (_expired, Alert.CERTIFICATE_EXPIRED, "expired"),
        (lambda: pki.leaf("client").der, Alert.CERTIFICATE_REVOKED, "revoked"),
    ],
    ids=["junk", "other root", "other purpose", "expired", "revoked"],
)
def test_a_certificate_that_is_not_perfect_is_refused_and_its_owner_is_not_nobody(
    make: Callable[[], bytes], alert: Alert, reason: str
) -> None:
    client = before_certificate(trust=pki.trust_with_crl(pki.leaf("client")), **OPTIONAL)
    with refused(client, CertificateRefused, alert, reason):
        client.send(forged_chain(make()))
    assert client.connection.events() == []


def test_a_certificate_without_its_proof_is_worth_nothing_not_even_anonymity() -> None:
    client = before_verify(**OPTIONAL)
    with refused(client, *_UNEXPECTED):
        client.send(client.finished())
    assert client.connection.events() == []


def test_a_certificate_with_somebody_elses_proof_is_refused() -> None:
    client = before_verify(**OPTIONAL)
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
        client.send(client.certificate_verify(pki.credential(pki.leaf("mallory"))))


def test_who_has_shown_a_certificate_cannot_take_it_back() -> None:
    for make in (before_verify, before_finished):
        client = make(**OPTIONAL)
        with refused(client, *_UNEXPECTED):
            client.send(forged_chain())


# -- an anonymous handshake is as strict as any other -----------------------------------------------------------------


def test_a_proof_behind_an_empty_certificate_has_no_place() -> None:
    client = _anonymous()
    with refused(client, *_UNEXPECTED) as caught:
        client.send(client.certificate_verify(CLIENT))
    assert str(caught.value) == "certificate_verify came where finished was expected"
    assert client.connection.events() == []


def test_a_certificate_behind_an_empty_one_has_no_place() -> None:
    client = _anonymous()
    with refused(client, *_UNEXPECTED):
        client.send(forged_chain(*CLIENT.chain))


def test_nobody_has_to_say_so() -> None:
    client = before_certificate(**OPTIONAL)
    with refused(client, *_UNEXPECTED):
        client.send(client.finished())


@pytest.mark.parametrize("authentication", ClientAuthentication)
def test_an_empty_certificate_with_a_context_is_an_illegal_parameter(authentication: ClientAuthentication) -> None:
    client = before_certificate(client_authentication=authentication)
    with refused(client, ProtocolViolation, Alert.ILLEGAL_PARAMETER):
        client.send(forged_chain(context=b"x"))


@pytest.mark.parametrize(
    "body", [b"", b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x00\x00", b"\x00\x00\x00\x05\x00\x00\x00\x00\x00"]
)
def test_an_empty_certificate_of_another_shape_is_a_decode_error(body: bytes) -> None:
    client = before_certificate(**OPTIONAL)
    with refused(client, DecodeError, Alert.DECODE_ERROR):
        client.send(bytes((HandshakeType.CERTIFICATE,)) + len(body).to_bytes(3, "big") + body)


def test_the_finished_of_an_anonymous_client_must_hold() -> None:
    failures: tuple[tuple[bytes, type[PeerError], Alert], ...] = (
        (bytes(48), ProtocolViolation, Alert.DECRYPT_ERROR),
        (bytes(47), DecodeError, Alert.DECODE_ERROR),
    )
    for body, error, alert in failures:
        client = _anonymous()
        with refused(client, error, alert):
            client.send(encode_finished(body))
        assert client.connection.events() == []


def test_data_of_an_anonymous_client_before_its_finished_is_an_unexpected_message() -> None:
    client = _anonymous()
    with refused(client, *_UNEXPECTED):
        client.say(ContentType.APPLICATION_DATA, b"early")


def test_nobody_becomes_somebody_after_the_handshake() -> None:
    """There is no post-handshake authentication (RFC 8446 §4.6.2), asked for or not."""
    for message in (forged_chain(*CLIENT.chain), forged_chain(), encode_finished(bytes(48))):
        client = _established_anonymously()
        with refused(client, *_UNEXPECTED):
            client.say(ContentType.HANDSHAKE, message)


def test_a_server_that_asks_an_anonymous_client_again_after_the_handshake_is_refused() -> None:
    server = before_server_hello(credential=None)
    server.finish_handshake(SERVER)
    with refused(server, *_UNEXPECTED):
        server.say(ContentType.HANDSHAKE, certificate_request(context=b"again"))


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_nobody_gets_a_ticket_though_it_asks_for_one() -> None:
    mesh = Mesh()
    wanted = {ExtensionType.PSK_KEY_EXCHANGE_MODES: vector(1, bytes((PSK_DHE_KE,)))}
    for credential, tickets in ((None, 0), (CLIENT, 2)):
        client = ScriptedClient(pqtls.ServerConnection(mesh.server(**OPTIONAL)))
        hello = client.client_hello()
        client.send(replace(hello, extensions=hello.extensions | wanted).encode())
        client.receive()
        if credential is None:
            client.send(forged_chain())
        else:
            client.send(forged_chain(*credential.chain))
            client.send(client.certificate_verify(credential))
        client.messages.clear()
        client.send(client.finished())
        client.receive()
        assert [message.type for message in client.messages] == [HandshakeType.NEW_SESSION_TICKET] * tickets


def test_a_session_is_of_the_identity_that_it_was_made_with_at_either_kind_of_server() -> None:
    mesh = Mesh()
    for first, second in ((OPTIONAL, OPTIONAL), (OPTIONAL, {}), ({}, OPTIONAL)):
        session = meet(mesh.client(), mesh.server(**first)).sessions[0]
        again = meet(mesh.client(session), mesh.server(**second))
        assert again.resumed
        assert again.at_server.peer_identity == pki.identity("client")
        assert again.at_server.client_authenticated
        assert again.at_server.peer_certificate == b""


def test_a_ticket_that_is_not_taken_leaves_who_shows_no_certificate_as_nobody() -> None:
    mesh = Mesh()
    stolen = mesh.session().ticket
    client = ScriptedClient(pqtls.ServerConnection(Mesh().server(**OPTIONAL)))
    hello = client.client_hello()
    offer = vector(2, vector(2, stolen) + bytes(4)) + vector(2, vector(1, bytes(48)))
    modes = {ExtensionType.PSK_KEY_EXCHANGE_MODES: vector(1, bytes((PSK_DHE_KE,)))}
    extensions = hello.extensions | modes | {ExtensionType.PRE_SHARED_KEY: offer}
    client.send(replace(hello, extensions=extensions).encode())
    client.receive()
    client.send(forged_chain())
    client.send(client.finished())
    assert _completed(client.connection).peer_identity == ""


# -- somebody on the path who would rather have an identified client be nobody ----------------------------------------


def test_a_request_that_the_server_did_not_make_or_the_client_did_not_get_breaks_the_servers_proof() -> None:
    """Even whoever had the handshake's keys could not put a CertificateRequest in or take it out: it is signed."""
    server = before_servers_request()
    server.say(ContentType.HANDSHAKE, certificate_request())  # not counted: the right server made none
    server.send(forged_chain(*SERVER.chain))
    with refused(server, ProtocolViolation, Alert.DECRYPT_ERROR):
        server.send(server.certificate_verify(SERVER))
    server = before_servers_request()
    server.sent.append(certificate_request())  # counted: the right server made one, which never comes
    server.send(forged_chain(*SERVER.chain))
    with refused(server, ProtocolViolation, Alert.DECRYPT_ERROR):
        server.send(server.certificate_verify(SERVER))


def test_an_empty_certificate_that_the_client_did_not_send_breaks_its_finished() -> None:
    client = before_certificate(**OPTIONAL)
    client.say(ContentType.HANDSHAKE, forged_chain())
    client.sent.append(forged_chain(*CLIENT.chain))  # what the client did send
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
        client.send(client.finished())


def test_records_that_are_cut_out_of_either_flight_are_missed_before_anything_is_complete() -> None:
    # Small records, so that the messages of a flight are in different ones; RFC 8449's least is 64 bytes.
    small = {"record_size_limit": 64}
    for cut in range(1, 4):
        client = pqtls.ClientConnection(pki.client_config(**small))
        server = pqtls.ServerConnection(pki.server_config(**small, **OPTIONAL))
        server.receive_data(client.data_to_send())
        flight = split_records(server.data_to_send())
        with pytest.raises(ProtocolViolation) as caught:
            client.receive_data(b"".join(flight[:cut] + flight[cut + 1 :]))
        assert caught.value.alert is Alert.BAD_RECORD_MAC
        assert client.events() == []
    client = pqtls.ClientConnection(pki.client_config(**small))
    server = pqtls.ServerConnection(pki.server_config(**small, **OPTIONAL))
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    flight = split_records(client.data_to_send())
    assert len(flight) > 100
    with pytest.raises(ProtocolViolation) as caught:
        server.receive_data(flight[-1])  # the Finished alone, and for a certificate that it never saw
    assert caught.value.alert is Alert.BAD_RECORD_MAC
    assert server.events() == []


def test_what_an_anonymous_client_says_to_one_server_is_nothing_to_another() -> None:
    client = pqtls.ClientConnection(pki.client_config(credential=None))
    first, second = (pqtls.ServerConnection(pki.server_config(**OPTIONAL)) for _ in range(2))
    hello = client.data_to_send()
    first.receive_data(hello)
    second.receive_data(hello)
    client.receive_data(first.data_to_send())
    with pytest.raises(ProtocolViolation) as caught:
        second.receive_data(client.data_to_send())
    assert caught.value.alert is Alert.BAD_RECORD_MAC
    assert second.events() == []


def test_a_server_that_never_asks_is_told_from_one_that_knows_its_client() -> None:
    """A rightful server may not ask; a client that must be known looks at client_authenticated."""
    server = before_server_hello()
    server.finish_handshake(SERVER, request=False)
    assert not _completed(server.connection).client_authenticated
    server = before_server_hello()
    server.send_server_hello()
    server.send(EncryptedExtensions({}).encode())
    server.send(certificate_request(), forged_chain(*SERVER.chain))
    server.send(server.certificate_verify(SERVER))
    server.send(server.finished())
    assert _completed(server.connection).client_authenticated
