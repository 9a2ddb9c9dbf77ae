"""X.509: our credential, and what we demand of a peer's chain.

The path itself is validated by `cryptography` (`x509.verification`, after RFC 5280 §6). That accepts, under an
ML-DSA-87 root, leaves with weak keys and leaves without a purpose, and knows nothing of SPIFFE: those demands are
added here.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from pqtls.errors import Alert, CertificateRefused, ConfigurationError
from pqtls.provider import SigningKey
from pqtls.signatures import (
    ECDSA_SECP256R1_SHA256,
    ECDSA_SECP384R1_SHA384,
    MLDSA87,
    SignatureScheme,
)
from pqtls.trust import TrustAnchors
from pqtls.x509_reading import (
    UNREADABLE,
    display_name,
    key_type,
    load_certificates,
    parse_certificate,
    path_id,
    shown,
    uris,
)

# Root, one intermediate for each of two tiers, leaf: more than the mesh makes, little enough to bound the work.
MAX_INTERMEDIATES: Final = 2
# What a peer may send at all; OpenSSL appends the root. Each costs parsing before anything is verified.
MAX_CERTIFICATES: Final = MAX_INTERMEDIATES + 2

_SCHEMES_BY_KEY_TYPE: Final = {
    scheme.key_type: scheme for scheme in (MLDSA87, ECDSA_SECP384R1_SHA384, ECDSA_SECP256R1_SHA256)
}
# In front of each block of a PEM file, and how a block of a private key begins, whatever its kind.
_PEM_BLOCK: Final = re.compile(rb"(?=-----BEGIN )")
_PEM_KEY: Final = re.compile(rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")
# A new key and the one before it.
_MAX_KEYS: Final = 2
_SEED_ONLY_HINT: Final = (
    "if OpenSSL made the key, convert it to seed form: "
    "openssl pkey -in KEY -provparam ml-dsa.output_formats=seed-only -out KEY"
)


class Purpose(Enum):
    """What the peer's certificate must be good for: the ExtendedKeyUsage of its role (RFC 5280 §4.2.1.12)."""

    SERVER = ExtendedKeyUsageOID.SERVER_AUTH
    CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Credential:
    """Who we are: a chain of DER certificates, leaf first, their issuers' DER names, and the leaf's private key."""

    chain: tuple[bytes, ...] = field(repr=False)
    issuers: tuple[bytes, ...] = field(repr=False)
    private_key: SigningKey = field(repr=False)
    signature_scheme: SignatureScheme
    identity: str | None
    not_valid_after: datetime.datetime

    @classmethod
    def from_pem(cls, chain_pem: bytes, private_key_pem: bytes) -> Credential:
        """Read a chain and its key; raise ConfigurationError where they cannot be used together.

        Of two keys the one that belongs to the leaf is taken: whoever renews both files cannot replace them at the same
        moment, and writes the old key behind the new one meanwhile. What stands behind these is not looked at.
        """
        chain = load_certificates(chain_pem, "the certificate file")
        leaf = chain[0]
        keys = [_load_private_key(pem) for pem in _key_blocks(private_key_pem)]
        key = next((one for one in keys if one.public_key() == leaf.public_key()), keys[0])
        scheme = _SCHEMES_BY_KEY_TYPE.get(key_type(key))
        if scheme is None:
            raise ConfigurationError(f"a private key of type {key_type(key)} is not used here: make one of ML-DSA-87")
        if key.public_key() != leaf.public_key():
            raise ConfigurationError("the private key does not belong to the first certificate of the file")
        found = uris(leaf)
        return cls(
            chain=tuple(certificate.public_bytes(Encoding.DER) for certificate in chain),
            issuers=tuple(certificate.issuer.public_bytes() for certificate in chain),
            private_key=key,
            signature_scheme=scheme,
            identity=found[0] if len(found) == 1 else None,
            not_valid_after=leaf.not_valid_after_utc,
        )

    def chain_for(self, authorities: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """What of the chain a peer needs that holds these authorities (DER names): often only the leaf.

        A flight of leaf and CertificateVerify fits ten segments of TCP; with an intermediate it does not.
        """
        for position, issuer in enumerate(self.issuers):
            if issuer in authorities:
                return self.chain[: position + 1]
        return self.chain


def _key_blocks(pem: bytes) -> list[bytes]:
    """Each private key by itself; what holds none is for the reader of keys to complain of."""
    blocks = [block for block in _PEM_BLOCK.split(pem) if _PEM_KEY.match(block)]
    return blocks[:_MAX_KEYS] or [pem]


def _load_private_key(pem: bytes) -> Any:
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigurationError("the private key is encrypted: store it unencrypted, with mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"the private key cannot be read; {_SEED_ONLY_HINT}") from None


@dataclass(frozen=True, slots=True)
class ValidatedChain:
    """What validation found: the leaf's public key, its one URI, and how long all of the path is valid.

    `path_ids` are those of x509_reading, root excluded; validity includes both ends.
    """

    public_key: object
    key_type: str
    identity: str
    path_ids: tuple[bytes, ...]
    valid_from: datetime.datetime
    valid_until: datetime.datetime


def validate_chain(
    chain: tuple[bytes, ...],
    trust: TrustAnchors,
    purpose: Purpose,
    now: datetime.datetime,
    schemes: tuple[SignatureScheme, ...],
) -> ValidatedChain:
    """Validate a peer's chain (DER, leaf first) at the time `now`, or raise CertificateRefused.

    Every key of the path must be of a type that `schemes` use: a leaf of level 5 under a weaker issuer is refused.
    """
    certificates = _parse_peer_chain(chain)
    leaf = certificates[0]
    path = _build_path(certificates, trust, now)
    allowed = {scheme.key_type for scheme in schemes}
    for certificate in path:
        kind = key_type(certificate.public_key())
        if kind not in allowed:
            raise CertificateRefused(
                f"the certificate {display_name(certificate)} has a key of type {kind}; "
                f"the profile takes {_listed(allowed)}",
                Alert.UNSUPPORTED_CERTIFICATE,
                "wrong_key_type",
            )
    _check_authority_purposes(path, purpose)
    _check_leaf_is_no_authority(leaf)
    _check_usage(leaf, purpose)
    found = ValidatedChain(
        public_key=leaf.public_key(),
        key_type=key_type(leaf.public_key()),
        identity=_only_uri(leaf),
        path_ids=tuple(path_id(one.issuer, one.serial_number) for one in path[:-1]),
        valid_from=max(one.not_valid_before_utc for one in path),
        valid_until=min(one.not_valid_after_utc for one in path),
    )
    trust.check_revocation(found.path_ids, found.identity, now)
    return found


def _parse_peer_chain(chain: tuple[bytes, ...]) -> list[x509.Certificate]:
    if len(chain) > MAX_CERTIFICATES:
        raise CertificateRefused(
            f"the peer sent {len(chain)} certificates; at most {MAX_CERTIFICATES} are looked at",
            Alert.BAD_CERTIFICATE,
            "chain_too_long",
        )
    certificates: list[x509.Certificate] = []
    for der in chain:
        try:
            certificates.append(parse_certificate(der))
        except UNREADABLE:
            raise CertificateRefused(
                "the peer sent a certificate that cannot be read", Alert.BAD_CERTIFICATE, "unreadable"
            ) from None
    return certificates


def _explain_times(certificates: list[x509.Certificate], now: datetime.datetime) -> None:
    """Say "expired" rather than "unknown" of a path that does not hold: it is what an operator can act on.

    Only then: a certificate too many in the message is no reason to refuse (RFC 8446 §4.4.2).
    """
    for certificate in certificates:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > end:
            reason, text = "expired", f"expired at {end:%Y-%m-%dT%H:%M:%SZ}"
        elif now < begin:
            reason, text = "not_yet_valid", f"is not valid before {begin:%Y-%m-%dT%H:%M:%SZ}"
        else:
            continue
        raise CertificateRefused(
            f"the peer's certificate {display_name(certificate)} {text}; our clock says {now:%Y-%m-%dT%H:%M:%SZ}",
            Alert.CERTIFICATE_EXPIRED,
            reason,
        )


# RFC 5280 and X509-SVID §4 leave a leaf's name to the SAN; the extensions named here are checked in _check_usage.
_LEAF_POLICY: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None)
    .require_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, None)
    .require_present(x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, None)
)
_ISSUER_POLICY: Final = verification.ExtensionPolicy.webpki_defaults_ca()


def _build_path(
    certificates: list[x509.Certificate], trust: TrustAnchors, now: datetime.datetime
) -> list[x509.Certificate]:
    verifier = (
        verification.PolicyBuilder()
        .store(trust.store)
        .time(now)
        .max_chain_depth(MAX_INTERMEDIATES)
        .extension_policies(ca_policy=_ISSUER_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    leaf, *intermediates = certificates
    try:
        return verifier.verify(leaf, [*intermediates, *trust.intermediates]).chain
    except verification.VerificationError as error:
        _explain_times(certificates, now)
        if _leads_to_a_root(leaf, [*intermediates, *trust.intermediates], trust.roots):
            raise CertificateRefused(
                f"the peer's certificate {display_name(leaf)} is not acceptable: {shown(str(error))}",
                Alert.BAD_CERTIFICATE,
                "bad_certificate",
            ) from None
        raise CertificateRefused(
            f"the peer's certificate {display_name(leaf)} was issued by "
            f"{shown(leaf.issuer.rfc4514_string()) or 'nobody'}, "
            "and no root that we trust made it",
            Alert.UNKNOWN_CA,
            "unknown_root",
        ) from None


def _leads_to_a_root(
    leaf: x509.Certificate, between: list[x509.Certificate], roots: tuple[x509.Certificate, ...]
) -> bool:
    """Whether the leaf stands under one of `roots`, however bad the path is. Nothing is accepted by it.

    It chooses between two refusals (RFC 8446 §6.2): a path to an anchor that does not hold is bad_certificate, one that
    leads to no anchor is unknown_ca.
    """
    unused, reached = list(between), [leaf]
    while reached:
        certificate = reached.pop()
        if any(_is_issued_by(certificate, root) for root in roots):
            return True
        above = [one for one in unused if _is_issued_by(certificate, one)]
        unused = [one for one in unused if one not in above]
        reached.extend(above)
    return False


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether `certificate` names this authority, its key included, or was signed by it.

    The name alone says little: roots of two meshes may share one. Where the certificate does not say which key is meant
    (RFC 5280 §4.2.1.1), the signature does.
    """
    if certificate.issuer != authority.subject:
        return False
    named = _extension(certificate, x509.AuthorityKeyIdentifier)
    own = _extension(authority, x509.SubjectKeyIdentifier)
    if named is not None and own is not None and named.key_identifier == own.digest:
        return True
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_authority_purposes(path: list[x509.Certificate], purpose: Purpose) -> None:
    """An intermediate that is limited to some purposes cannot issue for others.

    `cryptography` checks them as for a client, whichever role the peer has; this adds the server's.
    """
    for authority in path[1:-1]:
        try:
            purposes = authority.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            continue
        if purpose.value not in purposes and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in purposes:
            raise CertificateRefused(
                f"the authority {display_name(authority)} may not issue for a TLS {purpose.name.lower()}",
                Alert.BAD_CERTIFICATE,
                "wrong_usage",
            )


def _check_leaf_is_no_authority(leaf: x509.Certificate) -> None:
    """X509-SVID §4.1: cA is false on a leaf; and names are constrained by authorities only (RFC 5280 §4.2.1.10)."""
    for extension in leaf.extensions:
        is_authority = isinstance(extension.value, x509.BasicConstraints) and extension.value.ca
        if is_authority or isinstance(extension.value, x509.NameConstraints):
            raise CertificateRefused(
                f"the peer's certificate {display_name(leaf)} is an authority's, not a workload's",
                Alert.BAD_CERTIFICATE,
                "wrong_usage",
            )


def _check_usage(leaf: x509.Certificate, purpose: Purpose) -> None:
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    # RFC 8446 §4.4.2.2 wants digitalSignature; X509-SVID §4.3 forbids the two others on a leaf.
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise CertificateRefused(
            f"the peer's certificate {display_name(leaf)} is not for signing handshakes (keyUsage)",
            Alert.BAD_CERTIFICATE,
            "wrong_usage",
        )
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if purpose.value not in purposes:
        raise CertificateRefused(
            f"the peer's certificate {display_name(leaf)} is not for a TLS {purpose.name.lower()} (extendedKeyUsage)",
            Alert.BAD_CERTIFICATE,
            "wrong_usage",
        )


def _only_uri(leaf: x509.Certificate) -> str:
    found = uris(leaf)
    if len(found) != 1:
        # X509-SVID §2: exactly one URI SAN.
        raise CertificateRefused(
            f"the peer's certificate {display_name(leaf)} has {len(found)} URIs as subject alternative names, "
            "not exactly one",
            Alert.BAD_CERTIFICATE,
            "no_identity",
        )
    if not (found[0].isascii() and found[0].isprintable()):
        # RFC 3986 §2: a URI has no control characters, and nothing outside ASCII.
        raise CertificateRefused(
            f"the peer's certificate has a URI that is none: {shown(found[0])}", Alert.BAD_CERTIFICATE, "no_identity"
        )
    return found[0]


def _listed(names: set[str]) -> str:
    return " or ".join(sorted(names))
