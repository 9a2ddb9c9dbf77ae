"""Where the resources of Kubernetes keep the pods that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from injector.pods import Object

_TEMPLATE: Final = ("spec", "template")
_KINDS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("", "Pod"): (),
    ("", "PodTemplate"): ("template",),
    ("", "ReplicationController"): _TEMPLATE,
    ("apps", "Deployment"): _TEMPLATE,
    ("apps", "DaemonSet"): _TEMPLATE,
    ("apps", "ReplicaSet"): _TEMPLATE,
    ("apps", "StatefulSet"): _TEMPLATE,
    # Until 1.16 these were in another group; manifests of that time are still about.
    ("extensions", "Deployment"): _TEMPLATE,
    ("extensions", "DaemonSet"): _TEMPLATE,
    ("extensions", "ReplicaSet"): _TEMPLATE,
    ("batch", "Job"): _TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}


def path_of_pod(resource: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The path to the pod (or its template) within `resource`; None where it makes no pods that we know of."""
    version, kind = resource.get("apiVersion"), resource.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        return None
    path = _KINDS.get((version.rpartition("/")[0], kind))
    return path if path is not None and isinstance(_at(resource, path), dict) else None


def pod_of(resource: Mapping[str, Any], path: tuple[str, ...]) -> Object:
    """The pod at `path`, named after `resource` where it has no name of its own, as its pods will be."""
    pod: Object = _at(resource, path)
    return pod


def with_pod(resource: Object, path: tuple[str, ...], pod: Object) -> Object:
    """`resource` with another pod at `path`; what is not on the way there is shared."""
    if not path:
        return pod
    return {**resource, path[0]: with_pod(resource[path[0]], path[1:], pod)}


def name_of(resource: Mapping[str, Any]) -> str:
    """Kind and name, as `kubectl` writes them: `deployment/web`."""
    metadata = resource.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    name = metadata.get("name") or metadata.get("generateName") or "?"
    return f"{str(resource.get('kind')).lower()}/{str(name)[:253]}"


def _at(resource: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = resource
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
