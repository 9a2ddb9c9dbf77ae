"""A certificate signing request (PKCS #10, RFC 2986) and what may be asked in it.

The identity comes from the proof. A request may repeat what the proof gives; whatever else it asks for is refused and
not dropped, because whoever wrote it expects to get it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from certmgr.proofs import ProvenIdentity, Reason, Refused
from certmgr.x509_files import deprecations_ignored

# A key (2,592 bytes) and a signature (4,627, FIPS 204 table 2) make 10 kB of PEM; 100 names of 255 bytes add 35 kB.
MAX_REQUEST_SIZE: Final = 64 * 1024

_BEGIN: Final = re.compile(rb"-----BEGIN ")
# What `cryptography` raises for bytes that are none of its kind, some of it only when a part is asked for.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_EXTENSION_REQUEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.14")  # PKCS #9, RFC 2985 §5.4.2
_ROLES: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that may be granted: whoever sent it has the private key of `public_key`."""

    public_key: MLDSA87PublicKey

    @property
    def key_digest(self) -> str:
        """The SHA-256 of the key (SubjectPublicKeyInfo in DER), in hexadecimal digits."""
        return hashlib.sha256(self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def check_csr(pem: bytes, proven: ProvenIdentity) -> CheckedRequest:
    """Return what is asked in `pem`, where exactly that may be granted to `proven`.

    Raises Refused: TOO_LARGE (over MAX_REQUEST_SIZE), CSR_MALFORMED, CSR_KEY (no ML-DSA-87), CSR_SIGNATURE,
    NOT_ENTITLED (a name or use that is not the proof's).
    """
    if len(pem) > MAX_REQUEST_SIZE:
        raise Refused(
            Reason.TOO_LARGE,
            f"the request has {len(pem)} bytes, and at most {MAX_REQUEST_SIZE} are read",
            identity=proven.spiffe_id,
        )
    with deprecations_ignored():
        request = _parse(pem, proven)
        public_key = _check_key(request, proven)
        _check_signature(request, proven)
        _check_names(request, proven)
    return CheckedRequest(public_key)


def _parse(pem: bytes, proven: ProvenIdentity) -> x509.CertificateSigningRequest:
    blocks = len(_BEGIN.findall(pem))
    if blocks != 1:
        _refuse(Reason.CSR_MALFORMED, f"the request must be one PEM block and is {blocks}", proven)
    try:
        return x509.load_pem_x509_csr(pem)
    except _UNREADABLE:
        _refuse(Reason.CSR_MALFORMED, "the request is no PKCS #10 request in PEM", proven)


def _check_key(request: x509.CertificateSigningRequest, proven: ProvenIdentity) -> MLDSA87PublicKey:
    try:
        public_key = request.public_key()
    except _UNREADABLE:
        _refuse(Reason.CSR_KEY, "the request's key is of no known kind; ask for an ML-DSA-87 key", proven)
    if not isinstance(public_key, MLDSA87PublicKey):
        _refuse(Reason.CSR_KEY, "the request's key is not ML-DSA-87, and nothing else is certified here", proven)
    return public_key


def _check_signature(request: x509.CertificateSigningRequest, proven: ProvenIdentity) -> None:
    try:
        valid = request.signature_algorithm_oid == SignatureAlgorithmOID.ML_DSA_87 and request.is_signature_valid
    except _UNREADABLE:
        valid = False
    if not valid:
        _refuse(Reason.CSR_SIGNATURE, "the request is not signed by the key that it names", proven)


def _check_names(request: x509.CertificateSigningRequest, proven: ProvenIdentity) -> None:
    try:
        subject = request.subject
        attributes = [attribute.oid for attribute in request.attributes]
        extensions = list(request.extensions)
    except _UNREADABLE:
        _refuse(Reason.CSR_MALFORMED, "the request's subject, attributes or extensions cannot be read", proven)
    if subject.rdns:
        _refuse(
            Reason.NOT_ENTITLED,
            "the request asks for a subject, and workloads are named by their SPIFFE ID alone: leave it empty",
            proven,
        )
    for oid in attributes:
        if oid != _EXTENSION_REQUEST:
            _refuse(Reason.NOT_ENTITLED, f"the request has the attribute {oid.dotted_string[:80]}", proven)
    for extension in extensions:
        _check_extension(extension, proven)


def _check_extension(extension: x509.Extension[x509.ExtensionType], proven: ProvenIdentity) -> None:
    match extension.value:
        case x509.SubjectAlternativeName() as names:
            _check_alternative_names(names, proven)
        case x509.BasicConstraints(ca=False):
            pass
        case x509.KeyUsage() as usage if _only_signs(usage):
            pass
        case x509.ExtendedKeyUsage() as usages if set(usages) <= _ROLES:
            pass
        case x509.BasicConstraints() | x509.KeyUsage() | x509.ExtendedKeyUsage():
            _refuse(
                Reason.NOT_ENTITLED,
                "the request asks for a use that a workload's certificate does not have: it signs TLS handshakes, as "
                "server and as client",
                proven,
            )
        case _:
            oid = extension.oid.dotted_string[:80]
            _refuse(Reason.NOT_ENTITLED, f"the request asks for the extension {oid}, which nobody gets here", proven)


def _check_alternative_names(names: x509.SubjectAlternativeName, proven: ProvenIdentity) -> None:
    allowed = {name.lower() for name in proven.dns_names}
    for name in names:
        match name:
            case x509.UniformResourceIdentifier(value=value) if value == str(proven.spiffe_id):
                pass
            case x509.DNSName(value=value) if value.lower() in allowed:
                pass
            case _:
                _refuse(
                    Reason.NOT_ENTITLED,
                    f"the request asks for the name {str(name.value)[:80]!r}, and the proof is of {proven.spiffe_id}",
                    proven,
                )


def _only_signs(usage: x509.KeyUsage) -> bool:
    # encipher_only and decipher_only have a value only beside key_agreement.
    return not (
        usage.content_commitment
        or usage.key_encipherment
        or usage.data_encipherment
        or usage.key_agreement
        or usage.key_cert_sign
        or usage.crl_sign
    )


def _refuse(reason: Reason, message: str, proven: ProvenIdentity) -> NoReturn:
    raise Refused(reason, message, identity=proven.spiffe_id)
