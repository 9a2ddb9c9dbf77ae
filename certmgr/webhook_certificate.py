"""The injector's certificate for the API server, and the authority that signed it, as pure functions.

API servers verify no ML-DSA yet, so these two are the only classical certificates that we make: ECDSA on P-384. Each
certificate comes with an authority of its own, whose key is forgotten as soon as it has signed that one certificate:
nobody can steal it later, and nothing else is ever signed by it. Sources: RFC 5280 (X.509), RFC 7093 (key identifiers).
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certmgr.profiles import BACKDATE
from mesh.names import CERTIFICATE_FILE, PRIVATE_KEY_FILE, ROOTS_FILE

# There is no revocation list for API servers, so this bounds what a stolen key is good for; and half of it is how long
# the authority may be away before pods of the mesh are refused.
VALIDITY: Final = datetime.timedelta(days=30)
# How long the authority before stays trusted beside the one that follows it. A kubelet takes a changed Secret to its
# pods within two minutes (its sync period and its cache's time) and an injector looks every few seconds; an hour
# forgives a kubelet that is away for a while, and is soon over for who replaces a key that was stolen.
OVERLAP: Final = datetime.timedelta(hours=1)
# Who deletes the Secret again and again within OVERLAP makes as many authorities; a bundle of four has 3 kB.
MOST_AUTHORITIES: Final = 4

# Whoever may edit Secrets in our namespace may put anything into this one; it is read as data that may be wrong.
_BAD_PEM: Final = (KeyError, TypeError, ValueError, UnsupportedAlgorithm, x509.InvalidVersion)


@dataclass(frozen=True, slots=True)
class WebhookCertificate:
    """A serving certificate with its key, and the authority that signed it. Its repr never shows the key."""

    certificate: x509.Certificate
    authority: x509.Certificate
    private_key_pem: bytes = field(repr=False, compare=False)

    def files(self, authorities: Iterable[x509.Certificate]) -> dict[str, bytes]:
        """What is mounted, PEM by name; `authorities` are all that the API server is to trust."""
        return {
            CERTIFICATE_FILE: pem([self.certificate]),
            PRIVATE_KEY_FILE: self.private_key_pem,
            ROOTS_FILE: pem(authorities),
        }


@dataclass(frozen=True, slots=True)
class HeldCertificate:
    """What was read back: a certificate whose key lies beside it, and the authorities, as many as may be trusted."""

    certificate: x509.Certificate
    authorities: tuple[x509.Certificate, ...]

    def is_good(self, dns_name: str, now: datetime.datetime) -> bool:
        """Whether the API server, asking for `dns_name` now, would take the certificate."""
        try:
            policy = PolicyBuilder().store(Store(list(self.authorities))).time(now)
            policy.build_server_verifier(x509.DNSName(dns_name)).verify(self.certificate, [])
        except (VerificationError, *_BAD_PEM):
            return False
        return True

    def is_due(self, now: datetime.datetime) -> bool:
        """Whether half of its life is over: the next one may begin."""
        return now >= renewal_time(self.certificate)

    def trusted(self, now: datetime.datetime) -> tuple[x509.Certificate, ...]:
        """Whom the API server is to trust now: who signed the certificate and, for OVERLAP, who stood beside it."""
        signers = tuple(one for one in self.authorities if has_signed(one, self.certificate))
        is_new = now < self.certificate.not_valid_before_utc + BACKDATE + OVERLAP
        return alive((*signers, *self.authorities), now) if is_new else signers[:1]


def names_of(service: str, namespace: str, cluster_domain: str = "cluster.local") -> tuple[str, ...]:
    """The Service's names, the one that API servers ask for first."""
    inside = f"{service}.{namespace}.svc"
    return inside, f"{inside}.{cluster_domain}", f"{service}.{namespace}", service


def issue(dns_names: Sequence[str], now: datetime.datetime) -> WebhookCertificate:
    """Make a certificate for `dns_names` and an authority for it alone, both valid for VALIDITY from `now`."""
    authority_key = ec.generate_private_key(ec.SECP384R1())
    key = ec.generate_private_key(ec.SECP384R1())
    # Each has a name of its own, by which verifiers find it among others in a bundle.
    mark = hashlib.sha256(_public_der(authority_key.public_key())).hexdigest()[:16]
    issuer = _common_name(f"QBITEL webhook authority {mark}")
    authority = (
        _builder(issuer, issuer, authority_key.public_key(), authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .sign(authority_key, hashes.SHA384())
    )
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names])
    certificate = (
        _builder(_common_name("QBITEL webhook"), issuer, key.public_key(), authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    return WebhookCertificate(certificate, authority, _private_pem(key))


def read(files: Mapping[str, bytes]) -> HeldCertificate | None:
    """Read what WebhookCertificate.files wrote; None where it is not whole. Whatever stands there is no error."""
    try:
        certificate = x509.load_pem_x509_certificates(files[CERTIFICATE_FILE])[0]
        key = serialization.load_pem_private_key(files[PRIVATE_KEY_FILE], password=None)
        authorities = tuple(x509.load_pem_x509_certificates(files[ROOTS_FILE]))
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not _belongs(key, certificate):
            return None
        return HeldCertificate(certificate, authorities[:MOST_AUTHORITIES])
    except _BAD_PEM:
        return None


def alive(authorities: Iterable[x509.Certificate], now: datetime.datetime) -> tuple[x509.Certificate, ...]:
    """Those that have not ended, each once, in their order, MOST_AUTHORITIES at most."""
    return tuple(dict.fromkeys(one for one in authorities if now < one.not_valid_after_utc))[:MOST_AUTHORITIES]


def renewal_time(certificate: x509.Certificate) -> datetime.datetime:
    """When half of its life is over."""
    return certificate.not_valid_before_utc + (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / 2


def has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether `certificate` was signed by the key of `authority`; what else there is to check is is_good's."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, *_BAD_PEM):
        return False
    return True


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """All of them, one behind the other."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    moment = now.astimezone(datetime.UTC).replace(microsecond=0)
    above = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_key_identifier(signer))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATE)
        .not_valid_after(moment + VALIDITY)
        .add_extension(_key_identifier(key), critical=False)
        .add_extension(above, critical=False)
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_identifier(public_key: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    """The leftmost 160 bits of the SHA-256 of the key as SubjectPublicKeyInfo (RFC 7093 §2, method 4)."""
    return x509.SubjectKeyIdentifier(hashlib.sha256(_public_der(public_key)).digest()[:20])


def _public_der(public_key: ec.EllipticCurvePublicKey) -> bytes:
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _belongs(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    public_key = certificate.public_key()
    return isinstance(public_key, ec.EllipticCurvePublicKey) and _public_der(public_key) == _public_der(
        key.public_key()
    )


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
