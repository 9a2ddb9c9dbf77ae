"""A pod as JSON has it, read without trusting its shape: what is missing or of another type is empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

Object: TypeAlias = dict[str, Any]

INIT_CONTAINER: Final = "qbitel-init"
SIDECAR: Final = "qbitel-proxy"
OURS: Final = frozenset({INIT_CONTAINER, SIDECAR})


def part(value: Mapping[str, Any], *names: str) -> Object:
    """The map at `names` within `value`; empty where there is none."""
    found: Any = value
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}


def listed(value: Mapping[str, Any], name: str) -> list[Object]:
    """The maps in the list `name` of `value`."""
    items = value.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def texts(value: Mapping[str, Any], *names: str) -> dict[str, str]:
    """Labels or annotations: the map at `names`, as far as its values are strings."""
    return {key: text for key, text in part(value, *names).items() if isinstance(text, str)}


def annotations_of(pod: Mapping[str, Any]) -> dict[str, str]:
    """The annotations of `pod`."""
    return texts(pod, "metadata", "annotations")


def labels_of(pod: Mapping[str, Any]) -> dict[str, str]:
    """The labels of `pod`."""
    return texts(pod, "metadata", "labels")


def containers(pod: Mapping[str, Any]) -> Iterator[tuple[str, Object]]:
    """Every container of `pod` with the list that it is in, in the order in which they start."""
    spec = part(pod, "spec")
    for field in ("initContainers", "containers"):
        for container in listed(spec, field):
            yield field, container


def is_native_sidecar(field: str, container: Mapping[str, Any]) -> bool:
    """Whether `container`, of the list `field`, is an init container that stays (KEP-753)."""
    return field == "initContainers" and container.get("restartPolicy") == "Always"


def ports(container: Mapping[str, Any]) -> dict[str, int]:
    """The named ports of `container`."""
    return {
        one["name"]: one["containerPort"]
        for one in listed(container, "ports")
        if isinstance(one.get("name"), str) and isinstance(one.get("containerPort"), int)
    }


def shape_fault(pod: object) -> str | None:
    """Why `pod` cannot be looked at, in a few words; None where it can."""
    if not isinstance(pod, dict):
        return "it is no object"
    for name in ("metadata", "spec"):
        if not isinstance(pod.get(name, {}), dict):
            return f"its {name} is no object"
    for name in ("annotations", "labels"):
        if not isinstance(part(pod, "metadata").get(name) or {}, dict):
            return f"metadata.{name} is no object"
    spec = part(pod, "spec")
    for name in ("containers", "initContainers", "volumes"):
        items = spec.get(name)
        if items is None:
            continue
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            return f"spec.{name} is no list of objects"
    if not spec.get("containers"):
        return "it has no containers"
    return None
