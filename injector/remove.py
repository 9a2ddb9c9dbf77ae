"""A pod with our sidecar in, the pod as it was out: what the status names goes, and what it replaced comes back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from injector import pods, probes
from injector.annotations import STATUS
from injector.pods import Object
from injector.refusal import PodRefused
from injector.status import Status, read_status


def remove(pod: Object) -> Object:
    """Return `pod` without our sidecar; itself where it has none. Raises PodRefused for a status that fits no pod."""
    if fault := pods.shape_fault(pod):
        raise PodRefused(f"it cannot be read: {fault}")
    if STATUS not in pods.annotations_of(pod):
        return pod
    status = read_status(pod)
    if status is None:
        raise PodRefused(f"its annotation {STATUS} cannot be read, so that nobody knows what was added")
    pod = copy.deepcopy(pod)
    _restore_probes(pod, status)
    spec = pod["spec"]
    for field, names in (
        ("initContainers", status.init_containers),
        ("containers", status.containers),
        ("volumes", status.volumes),
    ):
        if isinstance(spec.get(field), list):
            spec[field] = [item for item in spec[field] if item.get("name") not in names]
    for name, override in status.replaced.items():
        _put_back(spec, name, override)
    for key in status.annotations:
        pods.part(pod, "metadata", "annotations").pop(key, None)
    for path in reversed(status.created):
        _unmake(pod, path)
    return pod


def _restore_probes(pod: Object, status: Status) -> None:
    for _, container in pods.containers(pod):
        if container.get("name") == pods.SIDECAR:
            probes.restore_probes(pod, probes.read_originals(container), status.probes)
            return


def _put_back(spec: Object, name: str, override: Any) -> None:
    match override:
        case {"field": ("initContainers" | "containers") as field, "index": int(index), "container": dict(container)}:
            spec.setdefault(field, []).insert(index, container)
        case _:
            raise PodRefused(f"its annotation {STATUS} does not say what the container {name[:63]} was")


def _unmake(pod: Object, path: str) -> None:
    """Take away the empty map or list at `path` that injection made; what somebody else put into it stays."""
    path, _, was_null = path.partition("=")
    *outer, name = path.split(".")
    holder: Mapping[str, Any] = pods.part(pod, *outer) if outer else pod
    if isinstance(holder, dict) and holder.get(name) in ({}, []):
        if was_null:
            holder[name] = None
        else:
            del holder[name]
