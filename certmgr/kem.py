"""The encryption certificate of a workload: an ML-KEM-1024 key bound to its SPIFFE id.

Source: RFC 9935 (ML-KEM in X.509): keyEncipherment is the only key usage, private keys are kept as the seed of
64 bytes. There is no extended key usage: the certificate authenticates nobody, in TLS or elsewhere.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey, MLKEM1024PublicKey

from certmgr.authority import (
    CertificateAndKey,
    WorkloadRequest,
    alternative_names,
    check_issuer,
    issuer_key_identifier,
    sign_certificate,
    whole_second,
)
from certmgr.profiles import BACKDATE, ProfiledExtension, key_identifier
from mesh.errors import UserError


@dataclass(frozen=True, slots=True)
class KemCertificateAndKey:
    """An ML-KEM-1024 certificate with its private key, or UserError. Its repr never shows the key."""

    certificate: x509.Certificate
    private_key: MLKEM1024PrivateKey = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if kem_public_key(self.certificate).public_bytes_raw() != self.private_key.public_key().public_bytes_raw():
            raise UserError("the private key does not belong to the certificate; use the pair that was made together")

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone: about 9 kB."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def private_key_pem(self) -> bytes:
        """The key as unencrypted PKCS#8 in seed form (RFC 9935): 172 bytes. A secret."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def issue_kem(request: WorkloadRequest, issuer: CertificateAndKey, now: datetime.datetime) -> KemCertificateAndKey:
    """Return a new ML-KEM-1024 key and the certificate that `issuer` signs for it; as `certify_kem`."""
    private_key = MLKEM1024PrivateKey.generate()
    return KemCertificateAndKey(certify_kem(request, private_key.public_key(), issuer, now), private_key)


def certify_kem(
    request: WorkloadRequest, public_key: MLKEM1024PublicKey, issuer: CertificateAndKey, now: datetime.datetime
) -> x509.Certificate:
    """Return a certificate for a key that somebody else keeps, with `request`'s names and within `issuer`'s days.

    The caller has made sure that the workload holds the private key: a KEM key cannot sign its own request.
    Raises UserError where `issuer` is no authority or is not valid at `now` (aware, cut to the second).
    """
    moment = whole_second(now)
    check_issuer(issuer.certificate, moment)
    return sign_certificate(
        subject=x509.Name([]),
        issuer=issuer.certificate.subject,
        public_key=public_key,
        not_before=max(moment - BACKDATE, issuer.certificate.not_valid_before_utc),
        not_after=min(moment + request.validity, issuer.certificate.not_valid_after_utc),
        extensions=_extensions(public_key, issuer, request),
        signing_key=issuer.private_key,
    )


def kem_public_key(certificate: x509.Certificate) -> MLKEM1024PublicKey:
    """The ML-KEM-1024 key in `certificate`. UserError where it is another one or has any use but keyEncipherment."""
    try:
        public_key = certificate.public_key()
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise _not_for_encryption() from None
    if not isinstance(public_key, MLKEM1024PublicKey) or usage != _ONLY_KEY_ENCIPHERMENT:
        raise _not_for_encryption()
    return public_key


def load_kem_private_key(pem: bytes) -> MLKEM1024PrivateKey:
    """The unencrypted ML-KEM-1024 key in `pem`, as KemCertificateAndKey writes it; UserError for anything else."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError("the ML-KEM key cannot be read; give the workload's kem.key, unencrypted") from None
    if not isinstance(key, MLKEM1024PrivateKey):
        raise UserError("the key is not one of ML-KEM-1024; give the workload's kem.key")
    return key


def _not_for_encryption() -> UserError:
    return UserError("the certificate is not an ML-KEM-1024 one for keyEncipherment alone; give the workload's kem.crt")


def _extensions(
    public_key: MLKEM1024PublicKey, issuer: CertificateAndKey, request: WorkloadRequest
) -> tuple[ProfiledExtension, ...]:
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_identifier(issuer))
    return (
        ProfiledExtension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        ProfiledExtension(_ONLY_KEY_ENCIPHERMENT, critical=True),
        # The subject is empty (RFC 5280 §4.2.1.6).
        ProfiledExtension(x509.SubjectAlternativeName(alternative_names(request)), critical=True),
        ProfiledExtension(key_identifier(public_key), critical=False),
        ProfiledExtension(authority, critical=False),
    )


_ONLY_KEY_ENCIPHERMENT = x509.KeyUsage(
    key_encipherment=True,
    digital_signature=False,
    content_commitment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
