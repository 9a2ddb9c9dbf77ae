"""The certificate authority as pure functions: a request, an issuer and the time go in, a certificate comes
out.

Keys and serial numbers are drawn from the operating system's generator; nothing else here depends on more
than the arguments. Files are certmgr/files.py's business.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey, MLDSA87PublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from certmgr.naming import check_common_name, check_dns_name, common_name, distinct_name, no_subject, parse_subject
from certmgr.profiles import (
    BACKDATE,
    INTERMEDIATE_VALIDITY,
    MAX_ALTERNATIVE_NAMES,
    MAX_ROOT_VALIDITY,
    MAX_WORKLOAD_VALIDITY,
    ROOT_VALIDITY,
    WORKLOAD_VALIDITY,
    ProfiledExtension,
    intermediate_extensions,
    key_identifier,
    root_extensions,
    workload_extensions,
)
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# What `cryptography` raises where an extension is missing, or where those of a foreign one are broken.
_NO_SUCH_EXTENSION: Final = (
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class CertificateAndKey:
    """A certificate with the private key that belongs to it, or UserError. Its repr never shows the key.

    Two are equal when their certificates are: then their keys are too.
    """

    certificate: x509.Certificate
    private_key: MLDSA87PrivateKey = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        public_key = _public_key(self.certificate)
        if not isinstance(public_key, MLDSA87PublicKey):
            raise UserError(
                "the certificate's key is not ML-DSA-87; make one with `qbitel ca init` or `qbitel ca issue`"
            )
        if public_key.public_bytes_raw() != self.private_key.public_key().public_bytes_raw():
            raise UserError("the private key does not belong to the certificate; use the pair that was made together")

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone, without its issuer: about 10 kB for a leaf."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def private_key_pem(self) -> bytes:
        """The key as unencrypted PKCS#8 in seed form (RFC 9881 §6): 128 bytes. A secret."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate's DER, as 64 hexadecimal digits."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRequest:
    """Who a leaf is for. UserError where a name cannot stand in a certificate.

    `common_name` is for tools that show nothing else; nothing of ours reads it, and it costs bytes in each
    handshake.
    """

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[IPAddress, ...] = ()
    common_name: str = ""
    validity: datetime.timedelta = WORKLOAD_VALIDITY

    def __post_init__(self) -> None:
        for name in self.dns_names:
            check_dns_name(name)
        names = len(self.dns_names) + len(self.ip_addresses)
        if names > MAX_ALTERNATIVE_NAMES:
            raise UserError(
                f"{names} DNS names and IP addresses are too many for one certificate; "
                f"give at most {MAX_ALTERNATIVE_NAMES}"
            )
        check_common_name(self.common_name)
        _check_validity(self.validity, MAX_WORKLOAD_VALIDITY, "workload certificate")


def create_root(
    subject: str,
    now: datetime.datetime,
    validity: datetime.timedelta = ROOT_VALIDITY,
    *,
    distinct: bool = False,
) -> CertificateAndKey:
    """Return a new self-signed ML-DSA-87 root whose name is `subject` in RFC 4514's form, `CN=…,O=…`.

    `distinct` puts distinct_name's mark into it, for roots that peers trust beside others. It is valid from BACKDATE
    before `now` (aware, cut to the second) to `validity` after it, that last second included. Raises UserError for a
    subject that cannot be parsed or is empty, and for a validity out of range.
    """
    name = parse_subject(subject)
    _check_validity(validity, MAX_ROOT_VALIDITY, "root")
    moment = whole_second(now)
    private_key = MLDSA87PrivateKey.generate()
    if distinct:
        name = distinct_name(name, private_key.public_key())
    try:
        certificate = sign_certificate(
            subject=name,
            issuer=name,
            public_key=private_key.public_key(),
            not_before=moment - BACKDATE,
            not_after=moment + validity,
            extensions=root_extensions(private_key.public_key()),
            signing_key=private_key,
        )
    except ValueError as error:
        # Some values of a name fail only when they are encoded: C=0& is no PrintableString.
        raise no_subject(subject, error) from None
    return CertificateAndKey(certificate, private_key)


def create_intermediate(
    subject: str | x509.Name,
    root: CertificateAndKey,
    now: datetime.datetime,
    validity: datetime.timedelta = INTERMEDIATE_VALIDITY,
) -> CertificateAndKey:
    """Return a new ML-DSA-87 key and the intermediate that `root` signs for it, named distinct_name of `subject`.

    Its days lie inside the root's. Raises UserError as create_root does, and where `root` is no authority or is not
    valid at `now` (aware, cut to the second).
    """
    private_key, request = request_intermediate(subject)
    return CertificateAndKey(sign_intermediate(request, root, now, validity), private_key)


def request_intermediate(subject: str | x509.Name) -> tuple[MLDSA87PrivateKey, x509.CertificateSigningRequest]:
    """Return a new ML-DSA-87 key and the request (PKCS #10) that a root elsewhere signs.

    Raises UserError for a subject that cannot be parsed or is empty.
    """
    name = parse_subject(subject) if isinstance(subject, str) else subject
    private_key = MLDSA87PrivateKey.generate()
    try:
        name = distinct_name(name, private_key.public_key())
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(private_key, None)
    except ValueError as error:
        raise no_subject(name.rfc4514_string(), error) from None
    return private_key, request


def sign_intermediate(
    request: x509.CertificateSigningRequest,
    root: CertificateAndKey,
    now: datetime.datetime,
    validity: datetime.timedelta = INTERMEDIATE_VALIDITY,
) -> x509.Certificate:
    """Return the intermediate that `request` asks `root` for: its name, with distinct_name's mark, and its key.

    Whatever else it asks for is not looked at: what an intermediate may do is ours to say. Raises UserError for a
    request that cannot be read, is not signed by its own key or is for another kind of key, and as create_intermediate.
    """
    _check_validity(validity, MAX_ROOT_VALIDITY, "intermediate")
    moment = whole_second(now)
    check_issuer(root.certificate, moment)
    subject, public_key = _requested(request)
    return sign_certificate(
        subject=distinct_name(subject, public_key),
        issuer=root.certificate.subject,
        public_key=public_key,
        not_before=max(moment - BACKDATE, root.certificate.not_valid_before_utc),
        not_after=min(moment + validity, root.certificate.not_valid_after_utc),
        extensions=intermediate_extensions(public_key, issuer_key_identifier(root)),
        signing_key=root.private_key,
    )


def issue_workload(request: WorkloadRequest, issuer: CertificateAndKey, now: datetime.datetime) -> CertificateAndKey:
    """Return a new ML-DSA-87 key and the leaf that `issuer` signs for it; as `certify_workload`."""
    private_key = MLDSA87PrivateKey.generate()
    return CertificateAndKey(certify_workload(request, private_key.public_key(), issuer, now), private_key)


def certify_workload(
    request: WorkloadRequest, public_key: MLDSA87PublicKey, issuer: CertificateAndKey, now: datetime.datetime
) -> x509.Certificate:
    """Return the leaf that `issuer` signs for a key that somebody else keeps.

    The caller has made sure that the workload holds the private key. The leaf's days lie inside its issuer's: a path
    that is checked with the issuer's dates (RFC 5280 §6.1.3) would end there anyway, and nobody should learn that from
    a failed handshake. Raises UserError where `issuer` is no authority or is not valid at `now` (aware, cut to the
    second).
    """
    moment = whole_second(now)
    check_issuer(issuer.certificate, moment)
    return sign_certificate(
        subject=common_name(request.common_name),
        issuer=issuer.certificate.subject,
        public_key=public_key,
        not_before=max(moment - BACKDATE, issuer.certificate.not_valid_before_utc),
        not_after=min(moment + request.validity, issuer.certificate.not_valid_after_utc),
        extensions=workload_extensions(
            public_key,
            issuer_key_identifier(issuer),
            alternative_names(request),
            subject_is_empty=not request.common_name,
        ),
        signing_key=issuer.private_key,
    )


def spiffe_id_of(certificate: x509.Certificate) -> SpiffeId:
    """The identity in a leaf: its only URI. UserError where there is none, or more than one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return SpiffeId.parse(uri)
    except _NO_SUCH_EXTENSION:  # InvalidSpiffeId is a ValueError too
        raise UserError("the certificate does not have exactly one URI that is a SPIFFE id; issue a new one") from None


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate says that its key may sign certificates (RFC 5280 §4.2.1.3 and §4.2.1.9)."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except _NO_SUCH_EXTENSION:
        return False
    return constraints.ca and usage.key_cert_sign


def sign_certificate(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    public_key: CertificatePublicKeyTypes,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
    extensions: Sequence[ProfiledExtension],
    signing_key: MLDSA87PrivateKey,
) -> x509.Certificate:
    """Return a certificate of exactly these fields with a random serial number, signed with ML-DSA-87."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        # 159 random bits: RFC 5280 §4.1.2.2 allows 20 octets, and the sign bit is kept clear.
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for extension in extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    # ML-DSA signs the message itself: there is no hash to name (RFC 9881 §3).
    return builder.sign(signing_key, None)


def check_issuer(certificate: x509.Certificate, moment: datetime.datetime) -> None:
    """Raise UserError where `certificate` is no authority or is not valid at `moment` (aware)."""
    if not is_authority(certificate):
        raise UserError(
            "the issuer's certificate is no authority (CA:TRUE with keyCertSign); use one of `qbitel ca init`"
        )
    if moment > certificate.not_valid_after_utc:
        raise UserError(
            f"the authority's certificate ended at {_shown_time(certificate.not_valid_after_utc)}; "
            "make a new root with `qbitel ca init`"
        )
    if moment < certificate.not_valid_before_utc:
        raise UserError(
            f"the authority's certificate begins only at {_shown_time(certificate.not_valid_before_utc)}; "
            "set this machine's clock"
        )


def _requested(request: x509.CertificateSigningRequest) -> tuple[x509.Name, MLDSA87PublicKey]:
    """The name and the key in a request, whose signature is valid. UserError where that cannot be said."""
    try:
        subject, public_key, signed = request.subject, request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        raise UserError("the request cannot be read; make a new one with `qbitel ca request`") from None
    if not isinstance(public_key, MLDSA87PublicKey):
        raise UserError("the request's key is not ML-DSA-87; make a new one with `qbitel ca request`")
    if not signed:
        raise UserError("the request is not signed by the key that it names; make a new one with `qbitel ca request`")
    return subject, public_key


def _public_key(certificate: x509.Certificate) -> CertificatePublicKeyTypes | None:
    """The certificate's key, or None for an algorithm that nobody here knows."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def issuer_key_identifier(issuer: CertificateAndKey) -> x509.SubjectKeyIdentifier:
    """What the issuer calls its own key; a root of another maker may not say it at all."""
    try:
        return issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return key_identifier(issuer.private_key.public_key())


def alternative_names(request: WorkloadRequest) -> list[x509.GeneralName]:
    """The SPIFFE id, then each other name once, in the order given."""
    return [
        x509.UniformResourceIdentifier(str(request.spiffe_id)),
        *map(x509.DNSName, dict.fromkeys(name.lower() for name in request.dns_names)),
        *map(x509.IPAddress, dict.fromkeys(request.ip_addresses)),
    ]


def _check_validity(validity: datetime.timedelta, longest: datetime.timedelta, what: str) -> None:
    if not datetime.timedelta(seconds=1) <= validity <= longest:
        raise UserError(f"a {what} can be valid for at most {longest.days} days and at least one second")


def _shown_time(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def whole_second(now: datetime.datetime) -> datetime.datetime:
    """`now` in UTC without its fraction: a certificate's times have whole seconds (RFC 5280 §4.1.2.5)."""
    if now.tzinfo is None:
        raise ValueError("`now` must be an aware datetime: a naive one would be read in the machine's zone")
    return now.astimezone(datetime.UTC).replace(microsecond=0)
