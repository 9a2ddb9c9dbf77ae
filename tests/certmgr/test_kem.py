"""The encryption certificate: what it says, and that it is nothing else."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey

from certmgr.authority import CertificateAndKey, WorkloadRequest, create_root, spiffe_id_of
from certmgr.kem import KemCertificateAndKey, certify_kem, issue_kem, kem_public_key, load_kem_private_key
from mesh.errors import UserError


@pytest.fixture(scope="module")
def issued(request_web: WorkloadRequest, root: CertificateAndKey, now: datetime.datetime) -> KemCertificateAndKey:
    return issue_kem(request_web, root, now)


def test_it_is_signed_by_the_authority_for_the_same_identity(
    issued: KemCertificateAndKey, root: CertificateAndKey, request_web: WorkloadRequest
) -> None:
    issued.certificate.verify_directly_issued_by(root.certificate)
    assert spiffe_id_of(issued.certificate) == request_web.spiffe_id


def test_key_encipherment_is_its_only_use_and_it_has_no_extended_one(issued: KemCertificateAndKey) -> None:
    usage = issued.certificate.extensions.get_extension_for_class(x509.KeyUsage)
    set_bits = {
        name.strip("_")
        for name in ("digital_signature", "key_agreement", "key_cert_sign", "key_encipherment")
        if getattr(usage.value, name)
    }
    assert (set_bits, usage.critical) == ({"key_encipherment"}, True)
    with pytest.raises(x509.ExtensionNotFound):
        issued.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)


def test_its_key_comes_back_from_pem(issued: KemCertificateAndKey) -> None:
    key = serialization.load_pem_private_key(issued.private_key_pem, None)
    assert isinstance(key, MLKEM1024PrivateKey)
    secret, ciphertext = kem_public_key(issued.certificate).encapsulate()
    assert key.decapsulate(ciphertext) == secret


def test_it_never_outlives_its_issuer(request_web: WorkloadRequest, now: datetime.datetime) -> None:
    short = create_root("CN=Short", now, datetime.timedelta(hours=1))
    assert issue_kem(request_web, short, now).certificate.not_valid_after_utc == short.certificate.not_valid_after_utc


def test_an_issuer_that_is_no_authority_is_refused(
    request_web: WorkloadRequest, web: CertificateAndKey, now: datetime.datetime
) -> None:
    with pytest.raises(UserError, match=r"no authority"):
        issue_kem(request_web, web, now)


def test_a_key_that_somebody_else_keeps_is_certified(
    request_web: WorkloadRequest, root: CertificateAndKey, now: datetime.datetime
) -> None:
    public_key = MLKEM1024PrivateKey.generate().public_key()
    assert kem_public_key(certify_kem(request_web, public_key, root, now)) == public_key


def test_an_identity_certificate_is_not_taken_for_one(web: CertificateAndKey) -> None:
    with pytest.raises(UserError, match=r"kem\.crt"):
        kem_public_key(web.certificate)


def test_a_key_of_another_certificate_is_refused_and_none_is_shown(issued: KemCertificateAndKey) -> None:
    with pytest.raises(UserError, match=r"does not belong"):
        KemCertificateAndKey(issued.certificate, MLKEM1024PrivateKey.generate())
    assert "private" not in repr(issued)


def test_a_key_is_loaded_and_what_is_none_is_refused(issued: KemCertificateAndKey, web: CertificateAndKey) -> None:
    assert load_kem_private_key(issued.private_key_pem).public_key() == issued.private_key.public_key()
    for pem in (b"", b"nonsense", issued.certificate_pem, web.private_key_pem):
        with pytest.raises(UserError, match=r"kem\.key"):
            load_kem_private_key(pem)
