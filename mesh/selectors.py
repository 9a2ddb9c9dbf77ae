"""Which workloads a resource is about: by its namespace, its labels, or not at all by a sidecar's (targetRefs)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from mesh.documents import Path
from mesh.reading import Report, Shape, both, fields, list_of, map_of, text

# Where Istio looks for what holds for the whole mesh.
ROOT_NAMESPACE: Final = "istio-system"


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod, or the pods of a Deployment, as policies see it."""

    namespace: str
    labels: Mapping[str, str]
    service_account: str
    name: str = ""  # for people; nothing is decided by it

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name or self.service_account}"


@dataclass(frozen=True, slots=True)
class TargetRef:
    """A Gateway, Service or ServiceEntry that a policy is attached to: a waypoint's or gateway's matter."""

    kind: str
    name: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Selector:
    """What a policy of `namespace` applies to. In the root namespace that is every namespace."""

    match_labels: Mapping[str, str]
    target_refs: tuple[TargetRef, ...] = ()

    def selects(self, workload: Workload, namespace: str, root_namespace: str = ROOT_NAMESPACE) -> bool:
        """Whether a policy that lives in `namespace` applies to the sidecar of `workload`."""
        if namespace not in (workload.namespace, root_namespace):
            return False
        return self.selects_labels(workload.labels)

    def selects_labels(self, labels: Mapping[str, str]) -> bool:
        """Whether pods with these labels are meant. With targetRefs none are: Istio leaves those to its waypoints."""
        if self.target_refs:
            return False
        return all(labels.get(key) == value for key, value in self.match_labels.items())

    @property
    def everything(self) -> bool:
        """Whether each workload of the namespace is meant."""
        return not self.match_labels and not self.target_refs


T = TypeVar("T")


def by_namespace(several: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """What comes with the name of its namespace, filed under it, each in the order in which it came."""
    found: dict[str, list[T]] = {}
    for namespace, one in several:
        found.setdefault(namespace, []).append(one)
    return found


def _without_wildcard(value: Any, path: Path, report: Report) -> None:
    if "*" in value:
        report.error(path, f"{value!r:.80}: a selector knows no wildcards")


_LABEL_VALUE: Final = both(text(most=63), _without_wildcard)
# 253 for the prefix, a slash and 63 for the name (Kubernetes, "Labels and Selectors").
_LABEL_KEY: Final = both(text(least=1, most=317), _without_wildcard)
LABELS: Final[Shape] = map_of(_LABEL_VALUE, key=_LABEL_KEY)

SELECTOR: Final = fields({"matchLabels": LABELS})
WORKLOAD_SELECTOR: Final = fields({"labels": LABELS})  # the networking resources call them so

# What Istio lets a policy be attached to, by group ("" and "core" are the same).
_TARGETS: Final = frozenset(
    {
        ("Service", ""),
        ("Service", "core"),
        ("ServiceEntry", "networking.istio.io"),
        ("Gateway", "gateway.networking.k8s.io"),
        ("GatewayClass", "gateway.networking.k8s.io"),
    }
)
_TARGET_REF: Final = fields(
    {
        "group": text(most=253),
        "kind": text(least=1, most=63),
        "name": text(least=1, most=253),
        "namespace": text(most=0),
    },
    required=("kind", "name"),
)


def _known_target(value: Any, path: Path, report: Report) -> None:
    if (value["kind"], value.get("group", "")) not in _TARGETS:
        report.error((*path, "kind"), "a policy is attached to a Service, a ServiceEntry, a Gateway or a GatewayClass")


TARGET_REF: Final = both(_TARGET_REF, _known_target)
# The fields by which a policy says what it applies to, for the shape of its spec.
SCOPE: Final[Mapping[str, Shape]] = {
    "selector": SELECTOR,
    "targetRef": TARGET_REF,
    "targetRefs": list_of(TARGET_REF, most=16),
}
ONE_SCOPE: Final = (("selector", "targetRef", "targetRefs"),)


def read_selector(spec: Mapping[str, Any], report: Report) -> Selector:
    """The scope that a spec of the right shape names; warns of what a sidecar does not follow."""
    refs = spec.get("targetRefs") or ([spec["targetRef"]] if "targetRef" in spec else [])
    if refs:
        place: Path = ("spec", "targetRefs" if "targetRefs" in spec else "targetRef")
        report.warning(place, "is for waypoints and gateways: sidecars leave this policy out, as Istio's do")
    if "selector" in spec and not spec["selector"].get("matchLabels"):
        report.warning(("spec", "selector"), "has no labels: every workload of the namespace is meant")
    return Selector(
        dict(spec.get("selector", {}).get("matchLabels", {})),
        tuple(TargetRef(ref["kind"], ref["name"], ref.get("group", "")) for ref in refs),
    )
