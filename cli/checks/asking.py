"""How a cluster is asked: so many requests at a time, pages without end cut short, and "I may not" as a fact, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from typing import Any, Final, TypeVar

from cli.checks.facts import Fact, Object, Objects, Right, known, unknown
from cli.checks.findings import Unknown
from injector import pods
from kube.client import EVERYTHING, ApiRefused, ApiUnavailable, Cluster, Query, resource

T = TypeVar("T")

# Requests at a time: as many as an API server takes of one user without queueing.
_AT_ONCE: Final = 12


class Asking:
    """One run's questions, of which many are asked at the same time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.turns = asyncio.Semaphore(_AT_ONCE)

    def listed(self, path: str, query: Query = EVERYTHING) -> Coroutine[Any, Any, Fact[Objects]]:
        """All objects at `path`, or why they are not known."""

        async def listed() -> Objects:
            found, _ = await self._cluster.list(path, query)
            return found

        return as_fact(listed())

    async def bounded(self, path: str, query: Query = EVERYTHING, *, most: int) -> Objects:
        """The objects at `path`, page by page, until there are `most` or somewhat more."""
        found: list[Object] = []
        async with self.turns, contextlib.aclosing(self._cluster.pages(path, query)) as pages:
            async for page, _ in pages:
                found += [_without_history(one) for one in page]
                if len(found) >= most:
                    break
        return found

    async def present(self, path: str) -> Object | None:
        """The object at `path`; None where there is none."""
        try:
            async with self.turns:
                return await self._cluster.get(path)
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    async def may(self, right: Right) -> bool:
        """Whether whoever asks has `right`."""
        attributes = {"verb": right.verb, "resource": right.resource, "group": right.api, "namespace": right.namespace}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        async with self.turns:
            answer = await self._cluster.create(
                resource("selfsubjectaccessreviews", api="apis/authorization.k8s.io/v1"), body
            )
        return bool(pods.part(answer, "status").get("allowed"))


async def as_fact(finding: Awaitable[T]) -> Fact[T]:
    """What `finding` returns; where it raises Unknown, or the API server refused or did not answer, the reason."""
    try:
        return known(await finding)
    except Unknown as reason:
        return unknown(str(reason))
    except (ApiRefused, ApiUnavailable) as error:
        return unknown(str(error))


async def together(**findings: Awaitable[Fact[Any]]) -> dict[str, Any]:
    """All of them at the same time, by their names."""
    return dict(zip(findings, await asyncio.gather(*findings.values()), strict=True))


def _without_history(found: Object) -> Object:
    """Without who wrote which field, which is as much as all the rest."""
    return {**found, "metadata": {**found["metadata"], "managedFields": None}}
