"""Pods, Services and namespaces, as far as discovery must know them: small values of what the API server says. Pure.

Of ten thousand pods all of this is in memory, so that little is kept, and what pods of one template share is kept once.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kube.objects import Object
from mesh.modes import MTLSMode
from mesh.names import ANNOTATION_PREFIX, INJECT_KEY, NAMESPACE_LABEL, SIDECAR_CONTAINER, STATUS_ANNOTATION

# "off": the Service is none of the mesh, whatever stands behind it: for taking sidecars out again (docs/peers.md).
MESH_ANNOTATION: Final = f"{ANNOTATION_PREFIX}mesh"
OFF: Final = "off"
EVERY_PORT: Final = "*"
# Ours, and what others call them; ours win (docs/injection.md).
_INCLUDED: Final = (f"{ANNOTATION_PREFIX}include-inbound-ports", "traffic.sidecar.istio.io/includeInboundPorts")
_EXCLUDED: Final = (f"{ANNOTATION_PREFIX}exclude-inbound-ports", "traffic.sidecar.istio.io/excludeInboundPorts")
_INTERCEPTION: Final = (f"{ANNOTATION_PREFIX}interception-mode", "sidecar.istio.io/interceptionMode")
_RANGE: Final = re.compile(r"\s*([0-9]{1,5})(?:[-:]([0-9]{1,5}))?\s*")
_NO: Final = frozenset({"false", "disabled"})
_YES: Final = frozenset({"true", "enabled"})
_ENDED: Final = frozenset({"Succeeded", "Failed"})
_DEFAULT_ACCOUNT: Final = "default"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Ports = tuple[tuple[int, int], ...]  # ranges, both ends included


@dataclass(frozen=True, slots=True)
class Capture:
    """Which ports of a pod its sidecar stands before."""

    included: Ports | None = None  # None: every port
    excluded: Ports = ()

    def __contains__(self, port: int) -> bool:
        return (self.included is None or _within(port, self.included)) and not _within(port, self.excluded)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has not ended. `capture` None: no sidecar stands before it.

    `asks` is the pod's own word on injection, None where it leaves it to its namespace. `mode` is what its sidecar
    takes in where no policy says it; None: not known. `port_names` are those of its containers' ports.
    """

    labels: Mapping[str, str]
    service_account: str
    capture: Capture | None
    asks: bool | None
    mode: MTLSMode | None
    port_names: Mapping[str, int]
    is_injected: bool = False


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A TCP port: `target` is the pods' port, or the name of one."""

    number: int
    target: int | str
    name: str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service with addresses of its own. `is_off`: it says that it is none of the mesh."""

    addresses: tuple[Address, ...]
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    is_off: bool


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace that is not being deleted. `asks`: its pods get a sidecar unless they say no."""

    asks: bool


def read_namespace(found: Object) -> Namespace | None:
    """None for one that is being deleted: nothing can be made in it any more."""
    metadata = found["metadata"]
    if metadata.get("deletionTimestamp"):
        return None
    return Namespace((metadata.get("labels") or {}).get(NAMESPACE_LABEL) == "enabled")


def read_service(found: Object) -> Service | None:
    """None for what has no address of the cluster: headless Services, and names of others."""
    spec = found.get("spec") or {}
    addresses = tuple(_addresses(spec.get("clusterIPs") or [spec.get("clusterIP")]))
    if not addresses:
        return None
    annotations = found["metadata"].get("annotations") or {}
    return Service(
        addresses,
        _shared(tuple(sorted((spec.get("selector") or {}).items()))),
        tuple(_service_port(port) for port in spec.get("ports") or () if port.get("protocol", "TCP") == "TCP"),
        str(annotations.get(MESH_ANNOTATION, "")).strip().lower() == OFF,
    )


def _addresses(texts: Iterable[object]) -> Iterable[Address]:
    for text in texts:
        try:
            address = ipaddress.ip_address(str(text))
        except ValueError:  # "None", "" and null: it has none
            continue
        yield getattr(address, "ipv4_mapped", None) or address


def _service_port(port: Mapping[str, Any]) -> ServicePort:
    number = port["port"]
    # 0 is what some clients send for "the same".
    return ServicePort(number, port.get("targetPort") or number, port.get("name") or "")


def read_pod(found: Object) -> Pod | None:
    """None for one that has ended: nobody is served by it any more."""
    if (found.get("status") or {}).get("phase") in _ENDED:
        return None
    metadata, spec = found["metadata"], found.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    labels = metadata.get("labels") or {}
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    sidecar = _sidecar(annotations, containers)
    return Pod(
        _shared(tuple(sorted(labels.items()))),
        spec.get("serviceAccountName") or _DEFAULT_ACCOUNT,
        None if sidecar is None else _capture(annotations),
        False if spec.get("hostNetwork") else _own_word(labels, annotations),
        None if sidecar is None else _mode(sidecar.get("args") or ()),
        _shared(tuple(sorted(_port_names(containers)))),
        sidecar is not None,
    )


def _sidecar(annotations: Mapping[str, str], containers: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Our container, of a pod that says that it was injected."""
    if STATUS_ANNOTATION not in annotations:
        return None
    return next((container for container in containers if container.get("name") == SIDECAR_CONTAINER), None)


def _own_word(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool | None:
    """As the injector reads it: the label goes before the annotation."""
    for values in (labels, annotations):
        if INJECT_KEY in values:
            word = values[INJECT_KEY].strip().lower()
            return True if word in _YES else False if word in _NO else None
    return None


def _said(annotations: Mapping[str, str], keys: tuple[str, str], default: str) -> str:
    return next((annotations[key].strip() for key in keys if key in annotations), default)


def _capture(annotations: Mapping[str, str]) -> Capture | None:
    if _said(annotations, _INTERCEPTION, "").upper() == "NONE":
        return None
    included = _said(annotations, _INCLUDED, EVERY_PORT)
    return Capture(None if included == EVERY_PORT else _ports(included), _ports(_said(annotations, _EXCLUDED, "")))


def _ports(text: str) -> Ports:
    """`80,8000-8100,9000:9010`, as `qbitel init` has them. The injector has refused everything else."""
    return tuple((int(one[1]), int(one[2] or one[1])) for one in map(_RANGE.fullmatch, text.split(",")) if one)


def _within(port: int, ranges: Ports) -> bool:
    return any(first <= port <= last for first, last in ranges)


def _mode(arguments: Iterable[object]) -> MTLSMode | None:
    words = [str(word) for word in arguments]
    for word, value in itertools.pairwise(words):
        if word == "--mode" and value in MTLSMode.__members__:
            return MTLSMode(value)
    return None


def _port_names(containers: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, int]]:
    for container in containers:
        for port in container.get("ports") or ():
            if port.get("name") and port.get("protocol", "TCP") == "TCP":
                yield port["name"], port["containerPort"]


@functools.lru_cache(maxsize=16_384)
def _shared(items: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """A map that all who say the same have in common; it must not be changed."""
    return dict(items)
