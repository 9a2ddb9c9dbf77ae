"""What the client demands of the server's protected flight, from EncryptedExtensions to Finished."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import pqtls
from pqtls import extensions as ext
from pqtls.certificates import Purpose
from pqtls.errors import (
    Alert,
    CertificateRefused,
    DecodeError,
    IdentityRefused,
    NegotiationRefused,
    PeerError,
    ProtocolViolation,
)
from pqtls.framing import HandshakeType
from pqtls.messages import CertificateVerify, EncryptedExtensions, encode_finished, encode_key_update
from pqtls.profiles import QBITEL, Profile
from pqtls.provider_cryptography import PROVIDER
from pqtls.record import RecordSealer
from pqtls.signatures import ECDSA_SECP384R1_SHA384, MLDSA87
from tests.support import pki
from tests.support.scripted_peer import certificate_request, forged_chain, refused
from tests.support.toward_client import (
    SERVER,
    before_certificate,
    before_encrypted_extensions,
    before_finished,
    before_request,
    before_verify,
)

_ILLEGAL = (ProtocolViolation, Alert.ILLEGAL_PARAMETER)


# -- EncryptedExtensions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extensions", "alert"),
    [
        ({51: b""}, Alert.ILLEGAL_PARAMETER),
        ({43: b""}, Alert.ILLEGAL_PARAMETER),
        ({13: b""}, Alert.ILLEGAL_PARAMETER),
        ({42: b""}, Alert.UNSUPPORTED_EXTENSION),
        ({16: ext.write_alpn((b"one",))}, Alert.UNSUPPORTED_EXTENSION),
        ({0: b""}, Alert.UNSUPPORTED_EXTENSION),
        ({0xABCD: b""}, Alert.UNSUPPORTED_EXTENSION),
    ],
    ids=str,
)
def test_encrypted_extensions_with_what_is_forbidden_or_was_not_offered_are_refused(
    extensions: ext.Extensions, alert: Alert
) -> None:
    server = before_encrypted_extensions()
    with refused(server, ProtocolViolation, alert):
        server.send(EncryptedExtensions(extensions).encode())


def test_encrypted_extensions_may_answer_what_was_offered() -> None:
    server = before_encrypted_extensions(alpn=(b"one", b"two"), server_name="web.example")
    extensions = {0: b"", 10: ext.write_code_points((0xFEC4,)), 16: ext.write_alpn((b"two",))}
    server.send(EncryptedExtensions(extensions).encode())
    server.send(certificate_request(), forged_chain(*SERVER.chain))
    server.send(server.certificate_verify(SERVER))
    server.send(server.finished())
    (event,) = server.connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert (event.alpn, event.server_name) == (b"two", "web.example")


@pytest.mark.parametrize("chosen", [(b"three",), (b"one", b"two")])
def test_a_protocol_that_was_not_offered_or_more_than_one_is_an_illegal_parameter(chosen: tuple[bytes, ...]) -> None:
    server = before_encrypted_extensions(alpn=(b"one", b"two"))
    with refused(server, *_ILLEGAL):
        server.send(EncryptedExtensions({16: ext.write_alpn(chosen)}).encode())


def test_a_server_that_chooses_no_protocol_is_taken_unless_one_is_required() -> None:
    server = before_encrypted_extensions(alpn=(b"one",))
    server.send(EncryptedExtensions({}).encode())
    server = before_encrypted_extensions(alpn=(b"one",), require_alpn=True)
    with refused(server, NegotiationRefused, Alert.NO_APPLICATION_PROTOCOL):
        server.send(EncryptedExtensions({}).encode())


# -- CertificateRequest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "error", "alert"),
    [
        (certificate_request(context=b"x"), *_ILLEGAL),
        (certificate_request(extensions={}), ProtocolViolation, Alert.MISSING_EXTENSION),
        (certificate_request(extensions={13: b"\x00\x00"}), DecodeError, Alert.DECODE_ERROR),
        (certificate_request(extensions={13: b"\x00\x02\x08\x04"}), NegotiationRefused, Alert.HANDSHAKE_FAILURE),
        (certificate_request(extensions={13: b"\x00\x02\x09\x06", 51: b""}), *_ILLEGAL),
    ],
    ids=[
        "context",
        "no signature_algorithms",
        "empty signature_algorithms",
        "no scheme of ours",
        "forbidden extension",
    ],
)
def test_a_certificate_request_that_is_wrong_gets_its_alert(
    message: bytes, error: type[PeerError], alert: Alert
) -> None:
    server = before_request()
    with refused(server, error, alert):
        server.send(message)


def test_unknown_extensions_of_a_certificate_request_are_ignored() -> None:
    server = before_request()
    server.send(certificate_request(extensions={13: b"\x00\x04\x08\x04\x09\x06", 0xABCD: b"x"}))
    server.send(forged_chain(*SERVER.chain))
    assert not server.alerts


# -- Certificate ------------------------------------------------------------------------------------------------------


def test_a_server_without_a_certificate_is_a_decode_error() -> None:
    server = before_certificate()
    with refused(server, DecodeError, Alert.DECODE_ERROR) as caught:
        server.send(forged_chain())
    assert "empty certificate chain" in str(caught.value)


@pytest.mark.parametrize(
    ("message", "alert"),
    [
        (forged_chain(*SERVER.chain, context=b"x"), Alert.ILLEGAL_PARAMETER),
        (forged_chain(*SERVER.chain, extensions={5: b""}), Alert.UNSUPPORTED_EXTENSION),
        (forged_chain(*SERVER.chain, extensions={43: b""}), Alert.ILLEGAL_PARAMETER),
    ],
    ids=["context", "extension not asked for", "extension of another message"],
)
def test_a_certificate_message_that_is_wrong_gets_its_alert(message: bytes, alert: Alert) -> None:
    server = before_certificate()
    with refused(server, ProtocolViolation, alert):
        server.send(message)


@pytest.mark.parametrize(
    ("chain", "alert", "reason"),
    [
        ((b"junk",), Alert.BAD_CERTIFICATE, "unreadable"),
        ((pki.leaf("server", "Other Root").der,), Alert.UNKNOWN_CA, "unknown_root"),
    ],
    ids=["junk", "other root"],
)
def test_a_chain_that_is_refused_gets_its_alert(chain: tuple[bytes, ...], alert: Alert, reason: str) -> None:
    server = before_certificate()
    with refused(server, CertificateRefused, alert, reason):
        server.send(forged_chain(*chain))


def test_an_expired_server_is_refused_at_the_time_that_the_owner_gives() -> None:
    server = before_certificate(now=lambda: pki.NOW + 2 * pki.DAY)
    with refused(server, CertificateRefused, Alert.CERTIFICATE_EXPIRED, "expired"):
        server.send(forged_chain(*SERVER.chain))


def test_a_certificate_for_clients_is_no_servers() -> None:
    only = pki.make_certificate(
        issuer=pki.root(), subject="x", names=(pki.uri("spiffe://a/b"),), purposes=(Purpose.CLIENT.value,)
    )
    server = before_certificate()
    with refused(server, CertificateRefused, Alert.BAD_CERTIFICATE, "wrong_usage"):
        server.send(forged_chain(only.der))


def test_an_identity_that_the_owner_refuses_is_denied_before_we_prove_ours() -> None:
    def refuse(uri: str) -> None:
        raise IdentityRefused(f"{uri} is not whom we called", reason="unexpected_identity")

    server = before_certificate(accept_identity=refuse)
    # The owner is not asked while the certificate may still be somebody else's.
    server.send(forged_chain(*SERVER.chain))
    with refused(server, CertificateRefused, Alert.ACCESS_DENIED, "unexpected_identity") as caught:
        server.send(server.certificate_verify(SERVER))
    assert str(caught.value) == f"{pki.identity('server')} is not whom we called"
    assert [message.type for message in server.messages] == [HandshakeType.CLIENT_HELLO]


# -- CertificateVerify and Finished -----------------------------------------------------------------------------------


def test_a_signature_by_another_key_is_a_decrypt_error() -> None:
    server = before_verify()
    with refused(server, ProtocolViolation, Alert.DECRYPT_ERROR):
        server.send(server.certificate_verify(pki.credential(pki.leaf("client"))))


def test_a_signature_of_the_clients_role_is_a_decrypt_error() -> None:
    server = before_verify()
    with refused(server, ProtocolViolation, Alert.DECRYPT_ERROR):
        server.send(server.certificate_verify(SERVER, role=Purpose.CLIENT))


def test_a_signature_over_another_transcript_is_a_decrypt_error() -> None:
    server = before_verify()
    server.sent.append(b"one more")
    with refused(server, ProtocolViolation, Alert.DECRYPT_ERROR):
        server.send(server.certificate_verify(SERVER))


@pytest.mark.parametrize("scheme", [0x0503, 0x0905, 0x0804])
def test_a_signature_of_a_scheme_that_was_not_offered_is_an_illegal_parameter(scheme: int) -> None:
    server = before_verify()
    with refused(server, *_ILLEGAL):
        server.send(CertificateVerify(scheme, b"x").encode())


def test_a_signature_of_a_scheme_that_does_not_fit_the_certificate_is_an_illegal_parameter() -> None:
    mixed = Profile("mixed", QBITEL.groups, (MLDSA87, ECDSA_SECP384R1_SHA384), QBITEL.cipher_suites)
    server = before_verify(profiles=(mixed,))
    key = ec.generate_private_key(ec.SECP384R1())
    signature = PROVIDER.sign(key, ECDSA_SECP384R1_SHA384, b"x")
    with refused(server, *_ILLEGAL) as caught:
        server.send(CertificateVerify(0x0503, signature).encode())
    assert "has a key of type ML-DSA-87, but it signed with ecdsa_secp384r1_sha384" in str(caught.value)


def test_a_wrong_finished_is_a_decrypt_error() -> None:
    server = before_finished()
    with refused(server, ProtocolViolation, Alert.DECRYPT_ERROR):
        server.send(encode_finished(bytes(48)))
    assert not server.connection.events()


@pytest.mark.parametrize("length", [0, 32, 49])
def test_a_finished_of_another_length_is_a_decode_error(length: int) -> None:
    server = before_finished()
    with refused(server, DecodeError, Alert.DECODE_ERROR):
        server.send(encode_finished(bytes(length)))


def test_data_behind_the_servers_finished_in_its_record_is_an_unexpected_message() -> None:
    server = before_finished()
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        server.send(server.finished(), encode_key_update(False))
    assert not server.connection.handshake_complete
    assert not server.connection.events()


def test_a_server_that_leaves_out_its_proof_is_not_believed() -> None:
    server = before_verify()
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        server.send(server.finished())
    server = before_request()
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        server.send(server.finished())


def test_a_record_under_other_keys_than_agreed_is_a_bad_record() -> None:
    server = before_encrypted_extensions()
    server.sealer = RecordSealer(server.secrets.client)
    with refused(server, ProtocolViolation, Alert.BAD_RECORD_MAC):
        server.send(EncryptedExtensions({}).encode())


def test_application_data_before_the_servers_finished_is_an_unexpected_message() -> None:
    server = before_finished()
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        server.say(23, b"early")
    assert not server.connection.events()
