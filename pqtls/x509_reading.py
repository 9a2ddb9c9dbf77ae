"""Reading X.509 certificates, ours and a peer's, so that nothing in them can surprise later."""

from __future__ import annotations

import hashlib
import re
import warnings
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.utils import CryptographyDeprecationWarning

from pqtls.errors import ConfigurationError

# What `cryptography` still reads but warns about, such as a serial number that is not positive, is refused here: a
# stranger must neither get it through nor write warnings into our log.
warnings.filterwarnings("error", category=CryptographyDeprecationWarning, module=re.escape(__name__))

_PEM_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----")
# Everything that `cryptography` raises, at the latest when a part is looked at, for DER that it cannot make sense of.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,
)
_CURVE_TYPES: Final = {"secp256r1": "P-256", "secp384r1": "P-384"}
# A SPIFFE ID or a subject that is meant to be read is far shorter.
_SHOWN: Final = 200
# Enough of SHA-256 that nobody finds a second certificate with the same identifier.
PATH_ID_SIZE: Final = 16


def key_type(key: object) -> str:
    """Name a public or private key's type as SignatureScheme.key_type does, or say what it is instead."""
    match key:
        case mldsa.MLDSA87PublicKey() | mldsa.MLDSA87PrivateKey():
            return "ML-DSA-87"
        case ec.EllipticCurvePublicKey() | ec.EllipticCurvePrivateKey():
            return _CURVE_TYPES.get(key.curve.name, key.curve.name)
    return type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")


def load_certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    """Read every certificate of a PEM file of ours; `what` names the file in a ConfigurationError."""
    blocks = len(_PEM_CERTIFICATE.findall(pem))
    if not blocks:
        raise ConfigurationError(f"{what} holds no PEM certificate (-----BEGIN CERTIFICATE-----)")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        for certificate in certificates:
            _read_all(certificate)
    except UNREADABLE as error:
        raise ConfigurationError(f"{what} cannot be read: {error}") from None
    if len(certificates) != blocks:
        raise ConfigurationError(f"{what} begins {blocks} certificates and holds {len(certificates)}: it is cut short")
    return certificates


def parse_certificate(der: bytes) -> x509.Certificate:
    """Read a peer's certificate; raises one of UNREADABLE."""
    certificate = x509.load_der_x509_certificate(der)
    _read_all(certificate)
    return certificate


def _read_all(certificate: x509.Certificate) -> None:
    """Look at every part that `cryptography` parses only when it is asked for, so that nothing fails later."""
    certificate.public_key()
    _ = (certificate.subject, certificate.issuer, certificate.extensions)
    _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def uris(certificate: x509.Certificate) -> list[str]:
    """The URIs among a certificate's subject alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def display_name(certificate: x509.Certificate) -> str:
    """What to call a certificate in an error: its URI, or its subject, or its serial number."""
    found = uris(certificate)
    return shown(
        (found[0] if found else "") or certificate.subject.rfc4514_string() or f"{certificate.serial_number:x}"
    )


def shown(text: str) -> str:
    """Text of a stranger's, fit for one line of a log: bounded, and without anything that a terminal would act on."""
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}…"
    return text if text.isprintable() else ascii(text)


def path_id(issuer: x509.Name, serial_number: int) -> bytes:
    """16 bytes that stand for "the certificate with this serial number of this issuer", which RFC 5280 makes unique."""
    serial = serial_number.to_bytes(21, "big", signed=True)  # RFC 5280 §4.1.2.2: at most 20 octets, and a sign
    return hashlib.sha256(issuer.public_bytes() + serial).digest()[:PATH_ID_SIZE]
