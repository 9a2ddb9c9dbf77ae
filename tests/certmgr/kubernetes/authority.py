"""A real authority whose state is in the place's Secrets, with a clock that is moved by hand where that matters."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from typing import Any

from certmgr.founding import new_state
from certmgr.kubernetes.parts import cluster_parts, cluster_store
from certmgr.kubernetes.secret_store import SecretStore
from certmgr.parts import Parts
from certmgr.service import AuthorityService
from certmgr.state_document import encode_state
from certmgr.store import AUTHORITY_DOCUMENT
from tests.certmgr.authority_rig import csr
from tests.kube.rig import Place, beside, utc_now


class Notebook:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    async def append(self, entry: Any) -> None:
        self.entries.append(entry)


class Calendar:
    """A wall clock that is moved by hand; it stands in the present to begin with."""

    def __init__(self) -> None:
        self.time = utc_now()

    def __call__(self) -> datetime.datetime:
        self.time += datetime.timedelta(milliseconds=1)
        return self.time

    def move(self, **duration: float) -> None:
        self.time += datetime.timedelta(**duration)


async def opened(
    place: Place, now: Callable[[], datetime.datetime], *, replica: str = "pod-1", **parts: Any
) -> AuthorityService:
    """The authority of this place, made where there is none yet."""
    store = SecretStore(place.cluster, place.namespace)
    if await store.load(AUTHORITY_DOCUMENT) is None:
        await store.save(AUTHORITY_DOCUMENT, encode_state(new_state("CN=Test root", "cluster.local", now())), None)
    outside = Parts(store=store, journal=Notebook(), replica=replica, **parts)
    return await AuthorityService.open(outside, now=now)


def parts_of(place: Place, replica: str, **options: Any) -> contextlib.AbstractAsyncContextManager[Parts]:
    return cluster_parts(
        kubeconfig=place.kubeconfig,
        trust_domain="cluster.local",
        replica=replica,
        journal=Notebook(),
        now=utc_now,
        namespace=place.namespace,
        **options,
    )


@contextlib.asynccontextmanager
async def serving(place: Place, replica: str, **options: Any) -> AsyncIterator[AuthorityService]:
    """An authority that runs, as `qbitel certmgr serve` runs it."""
    async with cluster_store(place.kubeconfig, place.namespace) as store:
        if await store.load(AUTHORITY_DOCUMENT) is None:
            state = new_state("CN=Test root", "cluster.local", utc_now())
            await store.save(AUTHORITY_DOCUMENT, encode_state(state), None)
    async with parts_of(place, replica, **options) as parts:
        service = await AuthorityService.open(parts, now=utc_now)
        async with beside(service.run()):
            yield service


async def issue(service: AuthorityService, offered: str) -> Any:
    """What the API does with a token and a CSR."""
    proven = await service.parts.tokens.identify(offered)
    anchors = service.bundle().anchors
    return await service.issue(proven, csr(), instance=proven.instance, anchors=anchors, kem_public_key=None)
