"""An authority in a folder whose clock is set by hand, and peers that ask it for certificates."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.audit import file_journal
from certmgr.folder_store import FolderStore
from certmgr.founding import new_state
from certmgr.parts import Parts
from certmgr.proofs import Method, ProvenIdentity
from certmgr.service import AuthorityService, IssuedToPeer
from certmgr.state_document import encode_state
from certmgr.store import AUTHORITY_DOCUMENT
from mesh.spiffe import SpiffeId

_T = TypeVar("_T")
PATIENCE = 60.0  # seconds that anything here may take on a slow machine
TRUST_DOMAIN = "cluster.local"


class Clock:
    """A wall clock that is moved by hand, and goes on by a millisecond whenever somebody looks."""

    def __init__(self) -> None:
        self.time = datetime.datetime(2026, 11, 25, 12, 0, tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        self.time += datetime.timedelta(milliseconds=1)
        return self.time

    def move(self, **duration: float) -> None:
        self.time += datetime.timedelta(**duration)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    async def limited() -> _T:
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(limited())


async def found(folder: Path, clock: Clock) -> FolderStore:
    """A new authority in `folder`."""
    store = FolderStore(folder)
    await store.save(AUTHORITY_DOCUMENT, encode_state(new_state("CN=Test root", TRUST_DOMAIN, clock())), None)
    return store


async def open_service(folder: Path, clock: Clock, replica: str = "one", **parts: Any) -> AuthorityService:
    outside = Parts(store=FolderStore(folder), journal=file_journal(folder / "audit.log"), replica=replica)
    return await AuthorityService.open(replace(outside, **parts), now=clock)


def proven(name: str = "web", trust_domain: str = TRUST_DOMAIN, **more: Any) -> ProvenIdentity:
    return ProvenIdentity(
        spiffe_id=SpiffeId.for_service_account("shop", name, trust_domain), method=Method.TOKEN, **more
    )


def csr(key: MLDSA87PrivateKey | None = None) -> bytes:
    """A certificate signing request that names nobody."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key or MLDSA87PrivateKey.generate(), None).public_bytes(Encoding.PEM)


async def enrol(service: AuthorityService, name: str = "web", instance: str = "pod-1", **more: Any) -> IssuedToPeer:
    """A certificate for a peer that trusts what is published now."""
    options: dict[str, Any] = {"instance": instance, "anchors": service.bundle().anchors, "kem_public_key": None}
    return await service.issue(proven(name), csr(), **{**options, **more})
