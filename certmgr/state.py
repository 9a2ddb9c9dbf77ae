"""What an authority is: its generations, the phase of a rotation, what was revoked, who may enrol, and who may not. A
value (ADR 12).

How it comes to be and changes is told elsewhere: founding.py, tokens.py, revocation.py, barring.py, rotation.py; how it
is written down in state_document.py.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import itertools
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey, MLDSA87PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.authority import CertificateAndKey, is_authority
from certmgr.profiles import MAX_WORKLOAD_VALIDITY
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, SpiffeId, check_trust_domain

# With this many revocations, tokens and bars, of identities of usual length, the document stays below MAX_DOCUMENT.
MAX_REVOKED: Final = 10_000
MAX_TOKENS: Final = 1_000
MAX_BARRED: Final = 1_000
# An intermediate is replaced every eight months and ends after twelve, so there are two at a time; revoked ones leave.
MAX_INTERMEDIATES: Final = 8
# RFC 5280 §3.3: an entry stays on the lists beyond the certificate's end. A day is for peers whose clocks are behind.
KEEP_ENDED: Final = datetime.timedelta(days=1)
# Of rotations and their ends, each of which is somebody's command; peers read it as a JSON number (RFC 8259 §6).
MAX_ROUND: Final = (1 << 53) - 1
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
    # Asked for with each certificate: hashed once.
    _name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_name", short_hash(self.root))
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
        return self._name

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
    """Whoever shows what has this SHA-256 (64 hexadecimal digits) gets a certificate for the identity, once.

    `key` is "" until then, and afterwards the SHA-256 of the key that it was spent for (SubjectPublicKeyInfo in DER).
    """

    digest: str
    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    until: datetime.datetime
    key: str = ""


@dataclass(frozen=True, slots=True)
class Barred:
    """An identity that gets no certificate, by whatever proof, until somebody lifts the bar."""

    spiffe_id: SpiffeId
    since: datetime.datetime
    reason: x509.ReasonFlags


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """An authority at one moment; `generations` are (current,) or, while a rotation is under way, (current, next).

    UserError where two of the certificates have one name: peers tell authorities apart by their names. `crls` are PEM,
    one for each certificate that can sign one; `leaf_validity` is what leaves get where nobody asks for less. Moments
    have whole seconds. `round` is raised by each beginning and each taking back of a rotation.
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
    round: int = 0
    barred: tuple[Barred, ...] = ()

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
        if len(self.barred) > MAX_BARRED:
            raise UserError(f"{MAX_BARRED} identities are barred already; lift what is not needed any more")
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
