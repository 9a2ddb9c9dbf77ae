"""Istio's kinds of policies, where a cluster has them: each is followed from when its CRD is there.

Whether it is there is asked of the CRD itself, which is an object like any other: an API server that has only just
started answers 404 for resources whose CRDs it has not taken up yet, and no policy may vanish for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

from control.discovery.policies import Reading, read_resource
from control.discovery.policy_book import Source
from kube.client import METADATA_LIST, ApiRefused, ApiUnavailable, Cluster, resource
from kube.mirror import Mirror
from kube.objects import Key, Object

_CRD_API: Final = "apis/apiextensions.k8s.io/v1"
_CRDS: Final = "customresourcedefinitions"
# Who installs Istio's CRDs later waits for so long until the first policy holds; five small requests each time.
_LOOK_SECONDS: Final = 15.0
_KEPT_METADATA: Final = ("name", "namespace", "annotations", "creationTimestamp")

_log = logging.getLogger("qbitel.discovery")


@dataclass(frozen=True, slots=True)
class Kind:
    """One of Istio's kinds; `versions` are those that we read, the best first."""

    name: str
    plural: str
    group: str
    versions: tuple[str, ...]

    @property
    def crd(self) -> str:
        """The name of its CustomResourceDefinition."""
        return f"{self.plural}.{self.group}"


_SECURITY: Final = ("security.istio.io", ("v1", "v1beta1"))
_NETWORKING: Final = ("networking.istio.io", ("v1", "v1beta1", "v1alpha3"))
KINDS: Final = (
    Kind("PeerAuthentication", "peerauthentications", *_SECURITY),
    Kind("AuthorizationPolicy", "authorizationpolicies", *_SECURITY),
    Kind("DestinationRule", "destinationrules", *_NETWORKING),
    Kind("Sidecar", "sidecars", *_NETWORKING),
    Kind("EnvoyFilter", "envoyfilters", "networking.istio.io", ("v1alpha3",)),
)


class FollowedKind:
    """What there is of one kind: nothing while the cluster does not know it."""

    def __init__(self, cluster: Cluster, kind: Kind, on_change: Callable[[], None]) -> None:
        self._cluster = cluster
        self._kind = kind
        self._on_change = on_change
        self._crd = ""  # uid and resourceVersion of the CRD that was seen last
        self._version = ""
        self._mirror: Mirror[Object] | None = None
        self._task: asyncio.Task[NoReturn] | None = None
        self._asked = False
        self._failing = False

    @property
    def name(self) -> str:
        """Of the CRD."""
        return self._kind.crd

    @property
    def ready(self) -> bool:
        """Whether it is known what there is: all of it, or that there is no such kind."""
        return self._asked and (self._mirror is None or self._mirror.ready)

    @property
    def source(self) -> Source:
        """Its objects, and how they are read."""
        items: Mapping[Key, Object] = {} if self._mirror is None else self._mirror.items
        return Source(f"{self._kind.crd}/{self._version}", items, partial(_read, self._api_version, self._kind.name))

    async def run(self) -> NoReturn:
        """Follow it until cancelled, whatever the API server does."""
        try:
            while True:
                try:
                    await self._look()
                except (ApiUnavailable, ApiRefused) as error:
                    if not self._failing:
                        _log.warning("whether the cluster has %s cannot be found out: %s", self._kind.crd, error)
                    self._failing = True
                else:
                    self._failing = False
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await self._stop()

    async def _look(self) -> None:
        """Begin to watch when the CRD has come or serves another version, end when it has gone."""
        if self._task is not None and self._task.done():
            self._task.result()  # a bug: nobody may go on without it
        found, _ = await self._cluster.list(
            resource(_CRDS, api=_CRD_API), {"fieldSelector": f"metadata.name={self._kind.crd}"}, accept=METADATA_LIST
        )
        crd = f"{found[0]['metadata']['uid']}/{found[0]['metadata']['resourceVersion']}" if found else ""
        if crd == self._crd and self._asked:
            return
        version = await self._served() if found else ""
        if version != self._version:
            # Until it is listed anew nothing may be decided: no policy is absent because a version is another.
            self._asked = False
            await self._stop()
            if version:
                self._start(version)
        self._crd = crd
        self._asked = True
        self._on_change()

    async def _served(self) -> str:
        """The version to read. "" where none that it serves is one of ours: then nothing of it can be followed."""
        crd = await self._cluster.get(resource(_CRDS, name=self._kind.crd, api=_CRD_API))
        served = {version["name"] for version in crd["spec"]["versions"] if version.get("served")}
        version = next((one for one in self._kind.versions if one in served), "")
        if not version:
            _log.error(
                "%s serves %s, and we read %s: its policies are NOT followed",
                *(self._kind.crd, ", ".join(sorted(served)) or "nothing", ", ".join(self._kind.versions)),
            )
        return version

    def _start(self, version: str) -> None:
        self._version = version
        path = resource(self._kind.plural, api=f"apis/{self._api_version}")
        self._mirror = Mirror(self._cluster, path, _kept, self._on_change)
        self._task = asyncio.create_task(self._mirror.run())
        _log.info("following %s of %s", self._kind.name, self._api_version)

    async def _stop(self) -> None:
        task, self._task, self._mirror, self._version = self._task, None, None, ""
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def _api_version(self) -> str:
        return f"{self._kind.group}/{self._version}"


def _read(api_version: str, kind: str, found: Object) -> Reading:
    return read_resource(found, api_version, kind)


def _kept(found: Object) -> Object:
    """What is read of it: managedFields and status are most of an object."""
    metadata = {name: found["metadata"][name] for name in _KEPT_METADATA if name in found["metadata"]}
    return {"metadata": metadata, "spec": found.get("spec") or {}}
