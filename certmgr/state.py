"""What an authority is: its generations, the phase of a rotation, what was revoked, who may enrol. A value, and as
such one document (ADR 12).

How the value comes to be and changes is told elsewhere: founding.py, tokens.py, revocation.py, rotation.py.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey, MLDSA87PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.authority import CertificateAndKey, check_dns_name, is_authority
from certmgr.profiles import MAX_ALTERNATIVE_NAMES, MAX_WORKLOAD_VALIDITY
from certmgr.store import MAX_DOCUMENT
from certmgr.x509_files import UNREADABLE, deprecations_ignored
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, SpiffeId, check_trust_domain

# With this many revocations and tokens, of identities of usual length, the document stays below MAX_DOCUMENT.
MAX_REVOKED: Final = 10_000
MAX_TOKENS: Final = 1_000
# An intermediate is replaced every eight months and ends after twelve, so there are two at a time; revoked ones leave.
MAX_INTERMEDIATES: Final = 8
# RFC 5280 §3.3: an entry stays on the lists beyond the certificate's end. A day is for peers whose clocks are behind.
KEEP_ENDED: Final = datetime.timedelta(days=1)
_VERSION: Final = 1
# What a document may unfold to. The largest that we write has some 4 MiB; zlib could make a gigabyte of one.
_MAX_UNFOLDED: Final = 8 << 20
# RFC 5280 §4.1.2.2: a positive number of at most 20 octets.
MAX_SERIAL: Final = (1 << 160) - 1
# What a CRL may say of why (RFC 5280 §5.3.1). Nothing here takes a revocation back, so there is no certificateHold.
REASONS: Final = frozenset(x509.ReasonFlags) - {
    x509.ReasonFlags.certificate_hold,
    x509.ReasonFlags.remove_from_crl,
}


class Phase(enum.Enum):
    """Of the root's rotation (ADR 12)."""

    STABLE = "stable"
    PUBLISHING = "publishing"
    SIGNING = "signing"
    ABORTING = "aborting"


@dataclass(frozen=True, slots=True)
class Generation:
    """A root and the intermediates under it, the newest first: that one signs leaves.

    UserError where the certificates and keys do not belong together so. `root_key` is None where it is kept off line.
    """

    root: x509.Certificate
    root_key: MLDSA87PrivateKey | None = field(repr=False, compare=False)
    intermediates: tuple[CertificateAndKey, ...]

    def __post_init__(self) -> None:
        if self.root_key is not None:
            CertificateAndKey(self.root, self.root_key)
        _check_signed(self.root, self.root, "the root")
        if not 1 <= len(self.intermediates) <= MAX_INTERMEDIATES:
            raise UserError(f"a generation has 1 to {MAX_INTERMEDIATES} intermediates, not {len(self.intermediates)}")
        for one in self.intermediates:
            _check_signed(one.certificate, self.root, "the intermediate")

    @property
    def name(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the root's DER."""
        return short_hash(self.root)

    @property
    def issuer(self) -> CertificateAndKey:
        """Who signs leaves."""
        return self.intermediates[0]

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        """The root, then the intermediates."""
        return (self.root, *(one.certificate for one in self.intermediates))

    @property
    def signers(self) -> tuple[CertificateAndKey, ...]:
        """All that can sign: the root first where its key is here, then the intermediates."""
        root = () if self.root_key is None else (CertificateAndKey(self.root, self.root_key),)
        return (*root, *self.intermediates)


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that is not to be accepted any more.

    `issuer` is short_hash of the certificate that signed it, `until` is when it ends by itself; `identity` is "" where
    that is not known.
    """

    serial: int
    issuer: str
    at: datetime.datetime
    until: datetime.datetime
    identity: str
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """Whoever shows what has this SHA-256 (64 hexadecimal digits) gets a certificate for the identity, once."""

    digest: str
    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    until: datetime.datetime


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """An authority at one moment; `generations` are (current,) or, while a rotation is under way, (current, next).

    UserError where two of the certificates have one name: peers tell authorities apart by their names. `crls` are PEM,
    one for each certificate that can sign one; `leaf_validity` is what leaves get where nobody asks for less. Moments
    have whole seconds.
    """

    trust_domain: str
    generations: tuple[Generation, ...]
    phase: Phase
    phase_since: datetime.datetime
    revoked: tuple[Revoked, ...] = field(repr=False)
    tokens: tuple[BootstrapToken, ...] = field(repr=False)
    crl_number: int
    crls: tuple[bytes, ...] = field(repr=False)
    leaf_validity: datetime.timedelta

    def __post_init__(self) -> None:
        try:
            check_trust_domain(self.trust_domain)
        except InvalidSpiffeId as error:
            raise UserError(str(error)) from None
        if len(self.generations) != (1 if self.phase is Phase.STABLE else 2):
            raise UserError(f"in the phase {self.phase.value}, {len(self.generations)} generations cannot be")
        if not datetime.timedelta(minutes=1) <= self.leaf_validity <= MAX_WORKLOAD_VALIDITY:
            raise UserError(f"leaves are valid for a minute to {MAX_WORKLOAD_VALIDITY.days} days")
        if len(self.revoked) > MAX_REVOKED:
            raise UserError(
                f"{MAX_REVOKED} certificates are revoked already, and no list has room for more: rotate the root "
                "(`qbitel ca rotate --start`), or let some of them end"
            )
        if len(self.tokens) > MAX_TOKENS:
            raise UserError(f"{MAX_TOKENS} bootstrap tokens are waiting already; let some be used, or end")
        names = [one.subject for one in self.authorities]
        for one, other in itertools.combinations(names, 2):
            if one == other:
                raise UserError(
                    f"two authorities are named {one.rfc4514_string()[:80]!r}, and peers could not tell them apart: "
                    "give the new one a name of its own"
                )

    @property
    def current(self) -> Generation:
        """The generation that every peer trusts."""
        return self.generations[0]

    @property
    def next(self) -> Generation | None:
        """The generation that a rotation leads to (or led to, while it is aborted)."""
        return self.generations[1] if len(self.generations) > 1 else None

    @property
    def signer(self) -> Generation:
        """The generation that signs leaves now."""
        return self.generations[1] if self.phase is Phase.SIGNING else self.generations[0]

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        """The roots and intermediates of all generations."""
        return tuple(itertools.chain.from_iterable(one.authorities for one in self.generations))

    @property
    def signers(self) -> tuple[CertificateAndKey, ...]:
        """All of them whose keys are here."""
        return tuple(itertools.chain.from_iterable(one.signers for one in self.generations))

    def encode(self) -> bytes:
        """Return the document: JSON, compressed by zlib (RFC 1950). It holds private keys.

        UserError where it is larger than any store takes.
        """
        plain = json.dumps(_document(self), sort_keys=True, separators=(",", ":")).encode("ascii")
        document = zlib.compress(plain, 9)
        if len(document) > MAX_DOCUMENT or len(plain) > _MAX_UNFOLDED:
            raise UserError(
                f"the authority's state has {len(document)} bytes ({len(plain)} before they were compressed), and at "
                f"most {MAX_DOCUMENT} ({_MAX_UNFOLDED}) can be kept: let bootstrap tokens and revoked certificates "
                "end, or give tokens fewer names"
            )
        return document

    @classmethod
    def decode(cls, document: bytes) -> AuthorityState:
        """Return what encode() was called on. UserError, which tells nothing secret, for any other bytes."""
        try:
            with deprecations_ignored():
                return _state(_Object(json.loads(_unfolded(document)), "the whole"))
        except UserError as error:
            raise UserError(f"the authority's state is damaged ({error}); restore it from a backup") from None
        # RecursionError: JSON that is nested for its own sake.
        except (*UNREADABLE, InvalidSignature, zlib.error, RecursionError):
            raise UserError("the authority's state is damaged and cannot be read; restore it from a backup") from None


def forget_ended(state: AuthorityState, now: datetime.datetime) -> AuthorityState | None:
    """Return the state without the tokens that ended, and the revoked certificates that ended more than KEEP_ENDED ago.

    None where there are none of these. Their entries leave the lists when these are signed again.
    """
    tokens = tuple(one for one in state.tokens if now <= one.until)
    revoked = tuple(one for one in state.revoked if now <= one.until + KEEP_ENDED)
    if len(tokens) == len(state.tokens) and len(revoked) == len(state.revoked):
        return None
    return dataclasses.replace(state, tokens=tokens, revoked=revoked)


def short_hash(certificate: x509.Certificate) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the DER: what generations and issuers are called by."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()[:16]


def is_list_of(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether `authority` signed the list. Both are ours, so that names are compared as they are written."""
    public_key = authority.public_key()
    return (
        crl.issuer == authority.subject
        and isinstance(public_key, MLDSA87PublicKey)
        and crl.is_signature_valid(public_key)
    )


def _check_signed(certificate: x509.Certificate, root: x509.Certificate, what: str) -> None:
    if not is_authority(certificate):
        raise UserError(f"{what} is no authority's certificate (CA:TRUE with keyCertSign)")
    if not isinstance(certificate.public_key(), MLDSA87PublicKey):
        raise UserError(f"{what}'s key is not ML-DSA-87")
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise UserError(f"{what} is not signed by the root; use the two that belong together") from None


# The document. Times are seconds since 1970; certificates, keys and lists are PEM, but lists are kept as hexadecimal
# DER, in which zlib finds what repeats from entry to entry: base64 hides it.


def _document(state: AuthorityState) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "trust_domain": state.trust_domain,
        "generations": [
            {
                "root": _pem(one.root),
                "root_key": None if one.root_key is None else _key_pem(one.root_key),
                "intermediates": [
                    {"certificate": _pem(each.certificate), "key": _key_pem(each.private_key)}
                    for each in one.intermediates
                ],
            }
            for one in state.generations
        ],
        "phase": state.phase.value,
        "phase_since": int(state.phase_since.timestamp()),
        "revoked": [
            {
                "serial": f"{one.serial:x}",
                "issuer": one.issuer,
                "at": int(one.at.timestamp()),
                "until": int(one.until.timestamp()),
                "identity": one.identity,
                "reason": one.reason.value,
            }
            for one in state.revoked
        ],
        "tokens": [
            {
                "digest": one.digest,
                "spiffe_id": str(one.spiffe_id),
                "dns_names": list(one.dns_names),
                "until": int(one.until.timestamp()),
            }
            for one in state.tokens
        ],
        "crl_number": state.crl_number,
        "crls": [x509.load_pem_x509_crl(one).public_bytes(Encoding.DER).hex() for one in state.crls],
        "leaf_validity": int(state.leaf_validity.total_seconds()),
    }


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _key_pem(key: MLDSA87PrivateKey) -> str:
    pem = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode("ascii")


def _unfolded(document: bytes) -> bytes:
    if len(document) > MAX_DOCUMENT:
        raise UserError(f"it has more than {MAX_DOCUMENT} bytes")
    unfolding = zlib.decompressobj()
    plain = unfolding.decompress(document, _MAX_UNFOLDED)
    if not unfolding.eof or unfolding.unused_data:
        raise UserError("it is cut short, or too long")
    return plain


class _Object:
    """A JSON object of which each value is taken by its kind; UserError for one of another kind, or left over."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise UserError(f"{place} is no object")
        self._values: dict[str, Any] = value
        self._place = place

    def take(self, key: str, kind: type | tuple[type, ...]) -> Any:  # of `kind`, as the caller knows
        """Return the value and forget it."""
        value = self._values.pop(key, _MISSING)
        # A bool is an int to Python, but not to JSON.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{key!r} of {self._place} is missing or of another kind")
        return value

    def number(self, key: str, most: int) -> int:
        """A whole number from 0 to `most`."""
        value: int = self.take(key, int)
        if not 0 <= value <= most:
            raise UserError(f"{key!r} of {self._place} is out of range")
        return value

    def moment(self, key: str) -> datetime.datetime:
        """A time in UTC."""
        return datetime.datetime.fromtimestamp(self.number(key, _LAST_SECOND), datetime.UTC)

    def hexadecimal(self, key: str, digits: int) -> str:
        """Lower-case digits, exactly so many."""
        value: str = self.take(key, str)
        if len(value) != digits or not set(value) <= _HEX_DIGITS:
            raise UserError(f"{key!r} of {self._place} is not {digits} hexadecimal digits")
        return value

    def objects(self, key: str) -> Iterator[_Object]:
        """An array of objects, each of which is used up by who asked for it."""
        for value in self.take(key, list):
            one = _Object(value, f"one of {key!r}")
            yield one
            one.end()

    def end(self) -> None:
        """Raise UserError where something is left: a newer version's, which must not be lost by writing it back."""
        if self._values:
            raise UserError(f"{self._place} has fields that are not of version {_VERSION}")


_MISSING: Final = object()
_LAST_SECOND: Final = 253402300799  # 9999-12-31T23:59:59Z, the last that X.509 can say
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


def _state(document: _Object) -> AuthorityState:
    if document.number("version", 1 << 31) != _VERSION:
        raise UserError(f"it is of another version than {_VERSION}: use the release that wrote it, or a newer one")
    state = AuthorityState(
        trust_domain=document.take("trust_domain", str),
        generations=tuple(map(_generation, document.objects("generations"))),
        phase=Phase(document.take("phase", str)),
        phase_since=document.moment("phase_since"),
        revoked=tuple(map(_revoked, document.objects("revoked"))),
        tokens=tuple(map(_token, document.objects("tokens"))),
        # RFC 5280 §5.2.3: at most 20 octets; at one a second, 63 bits last for ever.
        crl_number=document.number("crl_number", (1 << 63) - 1),
        crls=tuple(map(_crl, document.take("crls", list))),
        leaf_validity=datetime.timedelta(seconds=document.number("leaf_validity", 1 << 31)),
    )
    document.end()
    if any(one.spiffe_id.trust_domain != state.trust_domain for one in state.tokens):
        raise UserError("one of its bootstrap tokens is for another trust domain")
    if len(state.crls) > len(state.authorities):
        raise UserError("there are more revocation lists than authorities")
    for pem in state.crls:
        crl = x509.load_pem_x509_crl(pem)
        if not any(is_list_of(crl, one) for one in state.authorities):
            raise UserError("one of its revocation lists is of none of its authorities")
    return state


def _generation(document: _Object) -> Generation:
    key = document.take("root_key", (str, type(None)))
    return Generation(
        root=_certificate(document.take("root", str)),
        root_key=None if key is None else _key(key),
        intermediates=tuple(
            CertificateAndKey(_certificate(one.take("certificate", str)), _key(one.take("key", str)))
            for one in document.objects("intermediates")
        ),
    )


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _key(pem: str) -> MLDSA87PrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, MLDSA87PrivateKey):
        raise UserError("a private key is not ML-DSA-87")
    return key


def _crl(value: object) -> bytes:
    if not isinstance(value, str):
        raise UserError("a revocation list is no string")
    return x509.load_der_x509_crl(bytes.fromhex(value)).public_bytes(Encoding.PEM)


def _revoked(document: _Object) -> Revoked:
    serial = int(document.take("serial", str), 16)
    if not 1 <= serial <= MAX_SERIAL:
        raise UserError("the serial number of one of 'revoked' is out of range")
    identity = document.take("identity", str)
    if identity:
        SpiffeId.parse(identity)
    reason = x509.ReasonFlags(document.take("reason", str))
    if reason not in REASONS:
        raise UserError("the reason of one of 'revoked' is none")
    return Revoked(
        serial, document.hexadecimal("issuer", 16), document.moment("at"), document.moment("until"), identity, reason
    )


def _token(document: _Object) -> BootstrapToken:
    names = document.take("dns_names", list)
    if len(names) > MAX_ALTERNATIVE_NAMES or not all(isinstance(one, str) for one in names):
        raise UserError("'dns_names' of one of 'tokens' are no names")
    return BootstrapToken(
        digest=document.hexadecimal("digest", 64),
        spiffe_id=SpiffeId.parse(document.take("spiffe_id", str)),
        dns_names=tuple(map(check_dns_name, names)),
        until=document.moment("until"),
    )
