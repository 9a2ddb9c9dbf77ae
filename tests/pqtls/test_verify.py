"""Proofs are made only by checks that passed."""

from __future__ import annotations

import datetime

import pytest

from pqtls import verify
from pqtls.certificates import Purpose
from pqtls.chain_cache import ChainCache
from pqtls.config import ClientAuthentication
from pqtls.errors import Alert, CertificateRefused, MisuseError, ProtocolViolation
from pqtls.key_schedule import TrafficSecret
from pqtls.messages import Certificate, CertificateEntry, CertificateVerify
from pqtls.provider_cryptography import PROVIDER
from pqtls.signatures import ECDSA_SECP384R1_SHA384, MLDSA87
from pqtls.suites import TLS_AES_256_GCM_SHA384
from pqtls.verify import AnonymousPeer, ChainVerified, FinishedVerified, PskVerified, ResumedPeer, SignatureVerified
from tests.support import pki

_DIGEST = bytes(range(48))
_SECRET = TrafficSecret(TLS_AES_256_GCM_SHA384, PROVIDER, bytes(48))


def _chain() -> ChainVerified:
    message = Certificate(b"", (CertificateEntry(pki.leaf("server").der, {}),))
    return verify.verify_chain(message, pki.trust(), Purpose.SERVER, pki.NOW, (MLDSA87,), ChainCache(0))


def _signature(role: Purpose = Purpose.SERVER) -> CertificateVerify:
    credential = pki.credential(pki.leaf("server"))
    raw = verify.sign_transcript(credential.private_key, MLDSA87, role, _DIGEST, PROVIDER)
    return CertificateVerify.parse(raw[4:])


def _check(message: CertificateVerify, schemes: tuple[object, ...] = (MLDSA87,)) -> SignatureVerified:
    return verify.verify_signature(message, _chain(), Purpose.SERVER, _DIGEST, schemes, PROVIDER)  # type: ignore[arg-type]


def test_a_chain_that_holds_is_proved_with_its_identity() -> None:
    proof = _chain()
    assert proof.identity == pki.identity("server")
    assert proof.found.key_type == "ML-DSA-87"
    assert proof.chain == (pki.leaf("server").der,)


def test_a_chain_that_does_not_hold_gives_no_proof() -> None:
    message = Certificate(b"", (CertificateEntry(pki.leaf("server").der, {}),))
    late = pki.NOW + datetime.timedelta(days=2)
    with pytest.raises(CertificateRefused):
        verify.verify_chain(message, pki.trust(), Purpose.SERVER, late, (MLDSA87,), ChainCache(0))


@pytest.mark.parametrize(
    ("proof", "arguments"),
    [
        (ChainVerified, (None, ())),
        (ResumedPeer, (None,)),
        (AnonymousPeer, ()),
        (PskVerified, ()),
        (SignatureVerified, (MLDSA87,)),
        (FinishedVerified, ()),
    ],
)
def test_nobody_else_makes_a_proof(proof: type, arguments: tuple[object, ...]) -> None:
    with pytest.raises(MisuseError, match=f"{proof.__name__} is a proof: only pqtls.verify makes it"):
        proof(object(), *arguments)


def test_an_empty_certificate_message_proves_nobody_where_the_server_serves_nobody_in_particular() -> None:
    proof = verify.admit_without_certificate(Certificate(b"", ()), ClientAuthentication.OPTIONAL)
    assert isinstance(proof, AnonymousPeer)
    assert not hasattr(proof, "identity")


def test_an_empty_certificate_message_proves_nothing_where_a_certificate_is_required() -> None:
    with pytest.raises(CertificateRefused, match="demands one") as caught:
        verify.admit_without_certificate(Certificate(b"", ()), ClientAuthentication.REQUIRED)
    assert (caught.value.alert, caught.value.reason) == (Alert.CERTIFICATE_REQUIRED, "no_certificate")


@pytest.mark.parametrize("authentication", ClientAuthentication)
def test_whoever_shows_a_certificate_is_never_taken_for_nobody(authentication: ClientAuthentication) -> None:
    message = Certificate(b"", (CertificateEntry(b"anything", {}),))
    with pytest.raises(MisuseError, match="verified, or refused"):
        verify.admit_without_certificate(message, authentication)


def test_a_signature_over_this_transcript_in_this_role_is_proved() -> None:
    assert _check(_signature()).scheme is MLDSA87


def test_the_signed_content_is_that_of_section_4_4_3() -> None:
    content = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + _DIGEST
    signature = pki.leaf("server").key.sign(content)
    assert _check(CertificateVerify(0x0906, signature)).scheme is MLDSA87
    content = content.replace(b"server", b"client")
    pki.leaf("server").key.public_key().verify(_signature(Purpose.CLIENT).signature, content)


def test_a_signature_of_the_other_role_does_not_hold() -> None:
    with pytest.raises(ProtocolViolation, match="signature does not hold") as caught:
        _check(_signature(Purpose.CLIENT))
    assert caught.value.alert is Alert.DECRYPT_ERROR


def test_a_damaged_signature_does_not_hold() -> None:
    right = _signature().signature
    with pytest.raises(ProtocolViolation) as caught:
        _check(CertificateVerify(0x0906, right[:-1] + bytes((right[-1] ^ 1,))))
    assert caught.value.alert is Alert.DECRYPT_ERROR


@pytest.mark.parametrize("scheme", [0x0503, 0x0804, 0xFFFF])
def test_a_scheme_that_was_not_offered_is_an_illegal_parameter(scheme: int) -> None:
    with pytest.raises(ProtocolViolation, match="which was not offered") as caught:
        _check(CertificateVerify(scheme, b""))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


def test_a_scheme_of_another_key_type_is_an_illegal_parameter() -> None:
    message = CertificateVerify(0x0503, b"")
    with pytest.raises(ProtocolViolation, match="has a key of type ML-DSA-87, but it signed with ecdsa") as caught:
        _check(message, (MLDSA87, ECDSA_SECP384R1_SHA384))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


def test_a_right_finished_is_proved() -> None:
    assert isinstance(verify.verify_finished(_SECRET.finished(_DIGEST), _SECRET, _DIGEST), FinishedVerified)


def test_a_wrong_finished_is_a_decrypt_error_and_one_of_another_length_a_decode_error() -> None:
    right = _SECRET.finished(_DIGEST)
    with pytest.raises(ProtocolViolation, match="does not hold") as caught:
        verify.verify_finished(bytes((right[0] ^ 1,)) + right[1:], _SECRET, _DIGEST)
    assert caught.value.alert is Alert.DECRYPT_ERROR
    for length in (0, 47, 49):
        with pytest.raises(ProtocolViolation, match=f"has {length} bytes, not 48") as caught:
            verify.verify_finished((right + b"\0")[:length], _SECRET, _DIGEST)
        assert caught.value.alert is Alert.DECODE_ERROR
