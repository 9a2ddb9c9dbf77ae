"""What `qbitel certmgr serve` is put together from: files, or Kubernetes, bring the same parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PublicKey

from certmgr.audit import Journal
from certmgr.authority import WorkloadRequest
from certmgr.proofs import NoTokens, TokenVerifier
from certmgr.store import Store


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a peer needs to judge others: PEM files by name (mesh/names.py), all public.

    `anchors` is the hash of the roots and the `round` (state.AuthorityState), which peers acknowledge; `etag` changes
    with everything in here. `generation` is the one that signs now.
    """

    files: Mapping[str, bytes]
    anchors: str
    etag: str
    generation: str
    round: int = 0


@dataclass(frozen=True, slots=True)
class Issued:
    """A leaf, the intermediates above it (nearest first, roots left out), and the generation that signed it."""

    certificate: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    generation: str


class Authority(Protocol):
    """What a chore may ask of the authority that it runs beside."""

    @property
    def trust_domain(self) -> str:
        """Of every identity that it certifies."""
        ...

    def bundle(self) -> Bundle:
        """What is to be published now."""
        ...

    async def next_bundle(self, after: str) -> Bundle:
        """Return a bundle whose etag is not `after`, as soon as there is one."""
        ...

    async def certify(
        self, request: WorkloadRequest, public_key: MLDSA87PublicKey | MLKEM1024PublicKey, instance: str
    ) -> Issued:
        """Sign a leaf for a key that the caller made or got proof of.

        It is written into the audit log, and `instance` of the identity is known as a peer, before this returns.
        Raises UserError, StoreUnavailable.
        """
        ...

    async def acknowledge(self, identity: str, instance: str, anchors: str, serial: str = "") -> None:
        """This peer trusts what a bundle with these `anchors` names. Raises Refused, StoreUnavailable.

        `serial` is that of the certificate which it showed, in lower-case hexadecimal digits; "" stands for its newest.
        """
        ...

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether one of our own leaves was revoked."""
        ...


# Runs beside the API from its start to its end; it is cancelled then. If it raises, the authority ends (exit code 1).
Chore = Callable[[Authority], Awaitable[None]]


def always() -> bool:
    """The default of `is_leader`: there is only one of us."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The outside of an authority.

    Only while `is_leader()` does it renew its intermediate, sign revocation lists and step a rotation on; certificates
    are issued by every replica. `replica` is a name that no other has at the same time, and the same after a restart
    where that can be. `chores` are what else must run: elections, watches, publishing the bundle.
    """

    store: Store
    journal: Journal
    replica: str
    tokens: TokenVerifier = field(default_factory=NoTokens)
    is_leader: Callable[[], bool] = always
    chores: tuple[Chore, ...] = ()
