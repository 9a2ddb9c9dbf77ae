"""Finding out what a file of X.509 holds: PEM or DER, one thing or many, made by us or by a stranger.

What is found is not judged: certmgr/describe.py tells it to a person, pqtls decides whether to trust it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.utils import CryptographyDeprecationWarning

from mesh.errors import UserError

# Everything that `cryptography` raises, at the latest when a part is looked at, for DER that it cannot make sense of.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
# Roots of a browser's store are some 150; whoever shows more than this has given the wrong file.
MAX_OBJECTS: Final = 1000
# RFC 7468 §2 and §3. The label is looked for in both lines, so that one block cannot swallow the next.
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[^-]*-----END \1-----")
_BEGIN: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]{1,40}-----")


# So that who only hands them on need not import the library.
Certificate = x509.Certificate
CertificateRequest = x509.CertificateSigningRequest


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """That there is a private key, and of which kind; the key itself is not kept."""

    algorithm: str
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A bare public key, which nothing in the mesh uses, but which people mistake for a certificate."""

    algorithm: str


Thing = x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList | PrivateKey | PublicKey


@dataclass(frozen=True, slots=True)
class Found:
    """One thing out of a file: what it is, and how it was written there ("PEM" or "DER")."""

    thing: Thing
    form: str


def find(content: bytes) -> tuple[Found, ...]:
    """Everything that `content` holds, in its order: at least one. UserError, without the file's name, for the rest."""
    with deprecations_ignored():
        if _BEGIN.search(content) is None:
            return (Found(_one_der(content), "DER"),)
        return tuple(Found(thing, "PEM") for thing in _all_pem(content))


def certificates_of(content: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates that `content` holds, in its order; keys, requests and lists beside them are left out."""
    found = tuple(one.thing for one in find(content) if isinstance(one.thing, x509.Certificate))
    if not found:
        raise UserError("it holds no certificate")
    return found


def der_of(certificates: Sequence[x509.Certificate]) -> tuple[bytes, ...]:
    """Each certificate as DER."""
    return tuple(one.public_bytes(serialization.Encoding.DER) for one in certificates)


def pem_of(things: Sequence[x509.Certificate | x509.CertificateRevocationList]) -> bytes:
    """All of them as PEM, one after the other."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in things)


def lists_of(content: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists that `content` holds: at least one, or UserError."""
    found = tuple(one.thing for one in find(content) if isinstance(one.thing, x509.CertificateRevocationList))
    if not found:
        raise UserError("it holds no revocation list")
    return found


@contextmanager
def deprecations_ignored() -> Iterator[None]:
    """`cryptography` warns of what it will refuse one day, such as a serial number of 0: it shall be seen all the
    same.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


def key_name(key: object) -> str:
    """ "ML-DSA-87", "RSA", "EC P-256": what a person calls the algorithm of a public or private key."""
    curve = getattr(key, "curve", None)
    if curve is not None:
        return f"EC {_CURVES.get(curve.name, curve.name)}"
    name = type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey").lstrip("_")
    return re.sub(r"^ML(DSA|KEM)(\d+)$", r"ML-\1-\2", name)


_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def _all_pem(content: bytes) -> Iterator[Thing]:
    # EC keys come with a block of their parameters in front, which says nothing that the key does not.
    blocks = [block for block in _BLOCK.finditer(content) if not block[1].endswith(b"PARAMETERS")]
    begun = sum(1 for one in _BEGIN.finditer(content) if not one[0].endswith(b"PARAMETERS-----"))
    if begun != len(blocks):
        raise UserError(f"it begins {begun} PEM blocks and ends {len(blocks)} of them: it is cut short or damaged")
    if len(blocks) > MAX_OBJECTS:
        raise UserError(f"it holds {len(blocks)} PEM blocks; at most {MAX_OBJECTS} are looked at")
    for number, block in enumerate(blocks, 1):
        label = block[1].decode("ascii")
        load = _LOADERS.get(label)
        if load is None:
            raise UserError(f"its PEM block {number} is a {label}, which is nothing of X.509 that is known here")
        try:
            yield load(block[0])
        except UNREADABLE:
            raise UserError(f"its PEM block {number} ({label}) cannot be read: it is damaged or not of X.509") from None


def _one_der(content: bytes) -> Thing:
    for load in (
        x509.load_der_x509_certificate,
        x509.load_der_x509_crl,
        x509.load_der_x509_csr,
        _private_key_der,
        _public_key_der,
    ):
        try:
            thing: Thing = load(content)
        except UNREADABLE:
            continue
        return thing
    raise UserError("it holds neither PEM (-----BEGIN …-----) nor the DER of a certificate, request, list or key")


def _private_key_pem(content: bytes) -> PrivateKey:
    return _private_key(lambda: serialization.load_pem_private_key(content, password=None))


def _private_key_der(content: bytes) -> PrivateKey:
    return _private_key(lambda: serialization.load_der_private_key(content, password=None))


def _private_key(load: Callable[[], object]) -> PrivateKey:
    try:
        return PrivateKey(key_name(load()))
    except TypeError:  # how `cryptography` asks for a password
        return PrivateKey("unknown", encrypted=True)
    except UnsupportedAlgorithm:
        return PrivateKey("unknown")


def _lenient_private_key_pem(content: bytes) -> PrivateKey:
    """A block that says that it is a private key is one, even where it cannot be read: it must not be shown."""
    try:
        return _private_key_pem(content)
    except UNREADABLE:
        return PrivateKey("unreadable")


def _public_key_pem(content: bytes) -> PublicKey:
    return PublicKey(key_name(serialization.load_pem_public_key(content)))


def _public_key_der(content: bytes) -> PublicKey:
    return PublicKey(key_name(serialization.load_der_public_key(content)))


# By the label of RFC 7468, and the older ones that OpenSSL still writes.
_LOADERS: Final[Mapping[str, Callable[[bytes], Thing]]] = {
    "CERTIFICATE": x509.load_pem_x509_certificate,
    "X509 CERTIFICATE": x509.load_pem_x509_certificate,
    "CERTIFICATE REQUEST": x509.load_pem_x509_csr,
    "NEW CERTIFICATE REQUEST": x509.load_pem_x509_csr,
    "X509 CRL": x509.load_pem_x509_crl,
    "PRIVATE KEY": _lenient_private_key_pem,
    "ENCRYPTED PRIVATE KEY": _lenient_private_key_pem,
    "EC PRIVATE KEY": _lenient_private_key_pem,
    "RSA PRIVATE KEY": _lenient_private_key_pem,
    "PUBLIC KEY": _public_key_pem,
}
