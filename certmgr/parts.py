"""What `qbitel certmgr serve` is put together from: files, or Kubernetes, bring the same parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PublicKey

from certmgr.authority import WorkloadRequest
from certmgr.proofs import NoTokens, TokenVerifier
from certmgr.store import Journal, Store


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a peer needs to judge others: PEM files by name (mesh/names.py), all public.

    `anchors` is the hash of roots and intermediates, which sidecars acknowledge; `etag` changes with the lists too.
    """

    files: Mapping[str, bytes]
    anchors: str
    etag: str


class Authority(Protocol):
    """What a chore may ask of the authority that it runs beside."""

    def bundle(self) -> Bundle:
        """What is to be published now."""
        ...

    async def next_bundle(self, after: str) -> Bundle:
        """Return a bundle whose etag is not `after`, as soon as there is one."""
        ...

    async def certify(
        self, request: WorkloadRequest, public_key: MLDSA87PublicKey | MLKEM1024PublicKey, instance: str
    ) -> x509.Certificate:
        """Sign a leaf for a key that the caller made or got proof of, and write it into the audit log.

        It is signed by `signing_chain()`'s first. Raises UserError, StoreUnavailable.
        """
        ...

    def signing_chain(self) -> tuple[x509.Certificate, ...]:
        """The intermediates above a leaf that is signed now, nearest first, roots left out."""
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
    are issued by every replica. `chores` are what else must run: elections, watches, publishing the bundle.
    """

    store: Store
    journal: Journal
    tokens: TokenVerifier = field(default_factory=NoTokens)
    is_leader: Callable[[], bool] = always
    chores: tuple[Chore, ...] = ()
