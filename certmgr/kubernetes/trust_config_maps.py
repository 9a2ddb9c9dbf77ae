"""The trust bundle in each namespace of the mesh, as a ConfigMap that its pods mount.

A namespace is of the mesh by its label; there, what is deleted is made again and what is edited is put right. A
ConfigMap of that name without our label is somebody else's and stays as it is. Where the label was taken away, ours is
still kept up to date, because pods that run there mount it, but no longer made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from certmgr.parts import Authority, Bundle
from certmgr.proofs import Refused
from certmgr.store import StoreUnavailable
from kube.client import Cluster, resource
from kube.mirror import Mirror
from kube.objects import Object
from kube.reconciler import Reconciler, Step
from mesh.names import CONTROL_NAMESPACE, MESH_CONFIG_MAP, NAMESPACE_LABEL, ROOTS_CONFIG_MAP

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
OURS: Final = "qbitel"

_log = logging.getLogger("qbitel.certmgr")


@dataclass(frozen=True, slots=True)
class Present:
    """A ConfigMap as far as we must know it: `content` is content_hash of its data."""

    is_ours: bool
    version: str
    uid: str
    content: str
    keys: tuple[str, ...]
    is_immutable: bool


class TrustConfigMaps:
    """`run` is a chore: it publishes what the authority's bundle holds, while `is_leader`."""

    def __init__(self, cluster: Cluster, is_leader: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._reconciler = Reconciler(self._plan, is_leader, failures=(StoreUnavailable, Refused))
        self._namespaces = Mirror(
            cluster,
            resource("namespaces"),
            _is_alive,
            self._reconciler.poke,
            {"labelSelector": f"{NAMESPACE_LABEL}=enabled"},
        )
        # Discovery's, which it writes wherever pods have sidecars: a pod may ask for one by a label of its own.
        self._with_sidecars = Mirror(
            cluster,
            resource("configmaps"),
            _is_discovery_s,
            self._reconciler.poke,
            {"fieldSelector": f"metadata.name={MESH_CONFIG_MAP}"},
        )
        # By name and not by label, so that others' are seen before we run into them.
        self._present = Mirror(
            cluster,
            resource("configmaps"),
            present_of,
            self._reconciler.poke,
            {"fieldSelector": f"metadata.name={ROOTS_CONFIG_MAP}"},
        )
        self._bundle: Bundle | None = None
        self._foreign: frozenset[str] = frozenset()

    async def run(self, authority: Authority) -> None:
        """Until cancelled; whatever the API server does is survived."""
        self._bundle = authority.bundle()
        async with asyncio.TaskGroup() as group:
            for part in (self._namespaces, self._with_sidecars, self._present, self._reconciler):
                group.create_task(part.run())
            group.create_task(self._follow(authority))

    async def _follow(self, authority: Authority) -> None:
        bundle = authority.bundle()
        while True:
            self._bundle = bundle
            self._reconciler.poke()
            bundle = await authority.next_bundle(bundle.etag)

    async def _plan(self) -> Sequence[Step]:
        mirrors = (self._namespaces, self._with_sidecars, self._present)
        if self._bundle is None or not all(mirror.ready for mirror in mirrors):
            return ()
        present = {namespace: found for (namespace, _), found in self._present.items.items()}
        meshed = {name for _, name in self._namespaces.items} | {where for where, _ in self._with_sidecars.items}
        self._tell_foreign(frozenset(name for name in meshed if name in present and not present[name].is_ours))
        # Mounted files are text.
        data = {name: content.decode("ascii") for name, content in self._bundle.files.items()}
        content = content_hash(data)
        steps = []
        for namespace in sorted(meshed | present.keys()):
            found = present.get(namespace)
            if found is None:
                act = partial(self._create, namespace, data)
                steps.append(Step(namespace, "publish the trust bundle", act, content))
            elif found.is_ours and found.content != content:
                if found.is_immutable:
                    act = partial(self._delete, namespace, found)
                    steps.append(Step(namespace, "remove a trust bundle that was made immutable", act, content))
                else:
                    act = partial(self._update, namespace, found, data)
                    steps.append(Step(namespace, "bring the trust bundle up to date", act, content))
        return steps

    def _tell_foreign(self, foreign: frozenset[str]) -> None:
        for namespace in sorted(foreign - self._foreign):
            _log.warning(
                "%s: the ConfigMap %s is not ours (no label %s=%s) and is left alone; pods there get no trust bundle",
                *(namespace, ROOTS_CONFIG_MAP, MANAGED_BY, OURS),
            )
        self._foreign = foreign

    async def _create(self, namespace: str, data: Mapping[str, str]) -> None:
        metadata = {"name": ROOTS_CONFIG_MAP, "namespace": namespace, "labels": {MANAGED_BY: OURS}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        self._present.wrote(await self._cluster.create(resource("configmaps", namespace=namespace), body))

    async def _update(self, namespace: str, found: Present, data: Mapping[str, str]) -> None:
        """Change the data alone: others' annotations and labels are none of ours."""
        strays: dict[str, None] = dict.fromkeys(key for key in found.keys if key not in data)
        body = {"metadata": {"resourceVersion": found.version}, "data": {**data, **strays}, "binaryData": None}
        self._present.wrote(await self._cluster.patch(self._path(namespace), body))

    async def _delete(self, namespace: str, found: Present) -> None:
        await self._cluster.delete(self._path(namespace), {"uid": found.uid, "resourceVersion": found.version})

    def _path(self, namespace: str) -> str:
        return resource("configmaps", namespace=namespace, name=ROOTS_CONFIG_MAP)


def _is_alive(namespace: Object) -> bool | None:
    """None for a namespace that is being deleted: nothing can be made in it any more."""
    return None if namespace["metadata"].get("deletionTimestamp") else True


def _is_discovery_s(config_map: Object) -> bool | None:
    metadata = config_map["metadata"]
    is_ours = (metadata.get("labels") or {}).get(MANAGED_BY) == OURS
    return True if is_ours and metadata["namespace"] != CONTROL_NAMESPACE else None


def present_of(config_map: Object) -> Present:
    """Read a ConfigMap."""
    metadata = config_map["metadata"]
    data = config_map.get("data") or {}
    binary = config_map.get("binaryData") or {}
    return Present(
        is_ours=(metadata.get("labels") or {}).get(MANAGED_BY) == OURS,
        version=metadata["resourceVersion"],
        uid=metadata["uid"],
        content=content_hash({**data, **binary}),
        keys=tuple(data),
        is_immutable=bool(config_map.get("immutable")),
    )


def content_hash(data: Mapping[str, str]) -> str:
    """One word for all of a ConfigMap's data: kept in place of some 30 kB for each namespace."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
