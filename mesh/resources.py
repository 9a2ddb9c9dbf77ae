"""Documents → the resources that govern a mesh, as values; what cannot be read, or is not ours, is a problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mesh.authorization import AuthorizationPolicy
from mesh.authorization_reading import read_authorization_policy
from mesh.documents import Document, Problem
from mesh.local_rate_limit import LocalRateLimit, read_envoy_filter
from mesh.metadata import read_metadata
from mesh.peer_authentication import PeerAuthentication, read_peer_authentication, rivals
from mesh.reading import Reader, Report, meant, shown
from mesh.request_authentication import RequestAuthentication, read_request_authentication
from mesh.routes import VirtualService
from mesh.routes_reading import read_virtual_service
from mesh.selectors import ROOT_NAMESPACE
from mesh.sidecar_scope import ServiceEntry, Sidecar, read_service_entry, read_sidecar
from mesh.traffic import DestinationRule
from mesh.traffic_reading import read_destination_rule
from mesh.yaml_values import printable


@dataclass(frozen=True, slots=True)
class _Kind:
    versions: tuple[str, ...]
    collection: str  # the field of ResourceSet
    read: Reader[Any]


_SECURITY: Final = ("v1", "v1beta1")
_NETWORKING: Final = ("v1", "v1beta1", "v1alpha3")
_KINDS: Final[Mapping[tuple[str, str], _Kind]] = {
    ("security.istio.io", "PeerAuthentication"): _Kind(_SECURITY, "peer_authentications", read_peer_authentication),
    ("security.istio.io", "AuthorizationPolicy"): _Kind(_SECURITY, "authorization_policies", read_authorization_policy),
    ("security.istio.io", "RequestAuthentication"): _Kind(
        _SECURITY, "request_authentications", read_request_authentication
    ),
    ("networking.istio.io", "DestinationRule"): _Kind(_NETWORKING, "destination_rules", read_destination_rule),
    ("networking.istio.io", "VirtualService"): _Kind(_NETWORKING, "virtual_services", read_virtual_service),
    ("networking.istio.io", "Sidecar"): _Kind(_NETWORKING, "sidecars", read_sidecar),
    ("networking.istio.io", "ServiceEntry"): _Kind(_NETWORKING, "service_entries", read_service_entry),
    ("networking.istio.io", "EnvoyFilter"): _Kind(("v1alpha3",), "local_rate_limits", read_envoy_filter),
}
# Istio's other kinds, which no sidecar of ours follows.
_NOT_FOLLOWED: Final[Mapping[str, frozenset[str]]] = {
    "security.istio.io": frozenset(),
    "networking.istio.io": frozenset({"Gateway", "WorkloadEntry", "WorkloadGroup", "ProxyConfig"}),
}
# What is at the top of a document; anything else is a slip of indentation.
_TOP: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


@dataclass(frozen=True, slots=True)
class ResourceSet:
    """The resources of a mesh. A resource that holds an error is not in here: it is never half applied."""

    peer_authentications: tuple[PeerAuthentication, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    request_authentications: tuple[RequestAuthentication, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()
    virtual_services: tuple[VirtualService, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()
    service_entries: tuple[ServiceEntry, ...] = ()
    local_rate_limits: tuple[LocalRateLimit, ...] = ()
    foreign: tuple[Document, ...] = ()  # documents of kinds that are not read here: Services, Deployments …
    root_namespace: str = ROOT_NAMESPACE
    problems: tuple[Problem, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, documents: Iterable[Document], *, root_namespace: str = ROOT_NAMESPACE) -> ResourceSet:
        """Read every document that is ours. Never raises: what is wrong is among `problems`, and the rest is read."""
        found: dict[str, list[Any]] = {}
        foreign: list[Document] = []
        problems: list[Problem] = []
        names: dict[str, Document] = {}
        for document in documents:
            report = Report(document)
            kind = _kind_of(document, report)
            if kind is None:
                foreign.append(document)
            elif (resource := _read(document, kind, names, report)) is not None:
                found.setdefault(kind.collection, []).append(resource)
            problems += report.problems
        resources = cls(
            **{collection: tuple(each) for collection, each in found.items()},
            foreign=tuple(foreign),
            root_namespace=root_namespace,
        )
        return replace(resources, problems=(*problems, *_conflicts(resources)))

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep a resource out: whoever enforces these resources must not act as if it were not."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


def _kind_of(document: Document, report: Report) -> _Kind | None:
    """How a document is read; None where it is not, and `report` says why."""
    version, kind = document.value.get("apiVersion"), document.value.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str) or not version or not kind:
        report.error((), "is no resource: apiVersion and kind are missing, or no text")
        return None
    group, _, number = version.rpartition("/")
    known = _KINDS.get((group, kind))
    if known is not None and number in known.versions:
        return known
    if known is not None:
        report.error(("apiVersion",), f"{shown(version)} is not read; write {group}/{known.versions[0]}")
    elif kind in _NOT_FOLLOWED.get(group, ()):
        report.note((), f"{printable(kind)} is Istio's, and not followed by a sidecar of ours: it is left alone")
    elif group in _NOT_FOLLOWED:
        # Kubernetes refuses it too. Left alone, a policy whose kind is misspelt would be no policy.
        report.error(("kind",), f"{shown(kind)} is no kind of {group}{meant(kind, _kinds_of(group))}")
    elif mine := [its for its, name in _KINDS if name == kind]:
        message = f"{shown(version)} is not Istio's: it is left alone; the {kind} that governs a mesh is of {mine[0]}"
        # Others have an AuthorizationPolicy too; a group that is nearly Istio's is a slip.
        (report.warning if "istio" in version.lower() or not version.isascii() else report.note)(
            ("apiVersion",), message
        )
    else:
        report.note((), f"{printable(kind)} of {printable(version)} does not govern the mesh: it is left alone")
    return None


def _kinds_of(group: str) -> list[str]:
    return [*(name for its, name in _KINDS if its == group), *sorted(_NOT_FOLLOWED[group])]


def _read(document: Document, kind: _Kind, names: dict[str, Document], report: Report) -> Any:
    """The resource of a document; None where `report` says why there is none."""
    metadata = read_metadata(document, report)
    for name in document.value:
        if name not in _TOP:
            report.error((name,), "is no field of a resource: its settings stand under spec")
    spec = document.value.get("spec", {})
    if not isinstance(spec, Mapping):
        report.error(("spec",), f"{shown(spec)} stands where a map is wanted")
    if metadata is None or report.refused():
        return None
    first = names.setdefault(str(metadata), document)
    if first is not document:
        report.error(("metadata", "name"), f"is given twice: {first.source}:{first.line()} has one of this name")
        return None
    return kind.read(metadata, spec, report)


def _conflicts(resources: ResourceSet) -> Iterable[Problem]:
    """What no resource shows by itself."""
    for counts, ignored in rivals(resources.peer_authentications, resources.root_namespace):
        message = f"is ignored: {counts.metadata} is about the same workloads and is older (or first by name)"
        yield ignored.metadata.problem(("spec", "selector"), message, "warning")
    for policy in resources.peer_authentications:
        if policy.level(resources.root_namespace) is None:
            message = "in the root namespace has no effect: Istio takes it from a workload's own namespace alone"
            yield policy.metadata.problem(("spec", "selector"), message, "warning")
