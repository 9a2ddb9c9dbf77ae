"""What the server demands of the client after its own flight: certificate, signature, Finished."""

from __future__ import annotations

import pytest

from pqtls.certificates import Purpose
from pqtls.errors import Alert, CertificateRefused, DecodeError, IdentityRefused, ProtocolViolation
from pqtls.messages import CertificateVerify, encode_finished, encode_key_update
from pqtls.record import RecordSealer
from tests.support import pki
from tests.support.scripted_peer import forged_chain, refused
from tests.support.toward_server import CLIENT, before_certificate, before_finished, before_verify

_ILLEGAL = (ProtocolViolation, Alert.ILLEGAL_PARAMETER)


# -- the client's certificate -----------------------------------------------------------------------------------------


def test_a_client_without_a_certificate_is_told_that_one_is_required() -> None:
    client = before_certificate()
    with refused(client, CertificateRefused, Alert.CERTIFICATE_REQUIRED, "no_certificate"):
        client.send(forged_chain())


@pytest.mark.parametrize(
    ("chain", "alert", "reason"),
    [
        ((b"junk",), Alert.BAD_CERTIFICATE, "unreadable"),
        ((pki.leaf("client", "Other Root").der,), Alert.UNKNOWN_CA, "unknown_root"),
    ],
    ids=["junk", "other root"],
)
def test_a_chain_that_is_refused_gets_its_alert(chain: tuple[bytes, ...], alert: Alert, reason: str) -> None:
    client = before_certificate()
    with refused(client, CertificateRefused, alert, reason):
        client.send(forged_chain(*chain))


def test_an_expired_client_is_refused_at_the_time_that_the_owner_gives() -> None:
    client = before_certificate(now=lambda: pki.NOW + 2 * pki.DAY)
    with refused(client, CertificateRefused, Alert.CERTIFICATE_EXPIRED, "expired"):
        client.send(forged_chain(*CLIENT.chain))


def test_a_certificate_for_servers_is_no_clients() -> None:
    only = pki.make_certificate(
        issuer=pki.root(), subject="x", names=(pki.uri("spiffe://a/b"),), purposes=(Purpose.SERVER.value,)
    )
    client = before_certificate()
    with refused(client, CertificateRefused, Alert.BAD_CERTIFICATE, "wrong_usage"):
        client.send(forged_chain(only.der))


@pytest.mark.parametrize(
    ("message", "alert"),
    [
        (forged_chain(*CLIENT.chain, context=b"x"), Alert.ILLEGAL_PARAMETER),
        (forged_chain(*CLIENT.chain, extensions={5: b""}), Alert.UNSUPPORTED_EXTENSION),
    ],
    ids=["context", "extension not asked for"],
)
def test_a_certificate_message_that_is_wrong_gets_its_alert(message: bytes, alert: Alert) -> None:
    client = before_certificate()
    with refused(client, ProtocolViolation, alert):
        client.send(message)


def test_an_identity_that_the_owner_refuses_is_denied() -> None:
    def refuse(uri: str) -> None:
        raise IdentityRefused(f"{uri} may not come in")

    client = before_certificate(accept_identity=refuse)
    # The owner is not asked while the certificate may still be somebody else's.
    client.send(forged_chain(*CLIENT.chain))
    with refused(client, CertificateRefused, Alert.ACCESS_DENIED, "identity_refused") as caught:
        client.send(client.certificate_verify(CLIENT))
    assert str(caught.value) == f"{pki.identity('client')} may not come in"


# -- CertificateVerify and Finished -----------------------------------------------------------------------------------


def test_a_signature_that_does_not_hold_is_a_decrypt_error() -> None:
    for credential, role in ((pki.credential(pki.leaf("server")), Purpose.CLIENT), (CLIENT, Purpose.SERVER)):
        client = before_verify()
        with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
            client.send(client.certificate_verify(credential, role=role))
        assert not client.connection.events()


def test_the_servers_own_signature_cannot_be_played_back() -> None:
    client = before_verify()
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
        client.send(client.messages[4].raw)


@pytest.mark.parametrize("scheme", [0x0503, 0x0804])
def test_a_signature_of_a_scheme_that_was_not_asked_for_is_an_illegal_parameter(scheme: int) -> None:
    client = before_verify()
    with refused(client, *_ILLEGAL):
        client.send(CertificateVerify(scheme, b"x").encode())


def test_a_wrong_finished_is_a_decrypt_error_and_one_of_another_length_a_decode_error() -> None:
    failures: tuple[tuple[bytes, type[ProtocolViolation], Alert], ...] = (
        (bytes(48), ProtocolViolation, Alert.DECRYPT_ERROR),
        (b"", DecodeError, Alert.DECODE_ERROR),
        (bytes(49), DecodeError, Alert.DECODE_ERROR),
    )
    for body, error, alert in failures:
        client = before_finished()
        with refused(client, error, alert):
            client.send(encode_finished(body))
        assert not client.connection.handshake_complete
        assert not client.connection.events()


def test_the_servers_own_finished_cannot_be_played_back() -> None:
    client = before_finished()
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
        client.send(client.messages[5].raw)


def test_a_client_that_leaves_out_its_proof_is_not_believed() -> None:
    client = before_verify()
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.send(client.finished())
    client = before_certificate()
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.send(client.finished())


def test_data_behind_the_clients_finished_in_its_record_is_an_unexpected_message() -> None:
    client = before_finished()
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.send(client.finished(), encode_key_update(False))
    assert not client.connection.handshake_complete


def test_application_data_before_the_clients_finished_is_an_unexpected_message() -> None:
    client = before_finished()
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.say(23, b"early")
    client = before_finished()
    client.sealer = RecordSealer(client.application.client)
    with refused(client, ProtocolViolation, Alert.BAD_RECORD_MAC):
        client.say(23, b"early, under the keys to come")
