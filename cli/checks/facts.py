"""What is known of a cluster: values, gathered once, on which every check of a cluster decides."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

from cli.checks.findings import Unknown
from injector import pods
from mesh import names

T = TypeVar("T")
Object: TypeAlias = Mapping[str, Any]
Objects: TypeAlias = Sequence[Object]

# As cmd/kube-controller-manager and kubectl write them; what is in them is the cluster's own.
SYSTEM_NAMESPACES: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """Something that was found out, or the reason why not: `known` and `unknown` make one."""

    found: T | None
    reason: str  # "" where it is known

    @property
    def value(self) -> T:
        """What was found. Raises Unknown."""
        if self.reason:
            raise Unknown(self.reason)
        return cast("T", self.found)


def known(value: T) -> Fact[T]:
    """A fact."""
    return Fact(value, "")


def unknown(reason: str) -> Fact[Any]:
    """No fact, and why."""
    return Fact(None, reason)


_NOT_ASKED: Final[Fact[Any]] = unknown("was not asked for")


@dataclass(frozen=True, slots=True)
class Clock:
    """The API server's clock, and ours before and after it was asked."""

    before: datetime.datetime
    said: datetime.datetime
    after: datetime.datetime


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that somebody may or may not do. `namespace` is "" for what is in none, `api` "" for the core."""

    verb: str
    resource: str
    api: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{f'.{self.api}' if self.api else ''}{where}"


@dataclass(frozen=True, slots=True)
class Serving:
    """The webhook's certificate and its authority as the Secret has them (PEM); the key is never kept."""

    certificate: bytes
    authority: bytes


@dataclass(frozen=True, slots=True)
class DryRun:
    """What became of a pod that was created in `namespace` for trial: the pod, or who refused it and why."""

    namespace: str
    pod: Object | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """A ConfigMap of the authority: whether it is ours, and its texts by file."""

    is_ours: bool
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MeshMap:
    """A ConfigMap of the discovery program: when it was written (None: unknown), and its texts where they were read."""

    is_ours: bool
    written: datetime.datetime | None
    texts: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A resource that sidecars are told of, and when somebody last changed it."""

    kind: str
    namespace: str
    name: str
    changed: datetime.datetime | None

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a sidecar's metrics say: sums by (name, sorted labels), or why there are none."""

    figures: Mapping[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)
    error: str = ""
    obstacle: str = ""  # what keeps it from being ready, in its own words

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of the series of `name` that have these labels; None where there is no such series."""
        found = [
            value
            for (series, pairs), value in self.figures.items()
            if series == name and labels.items() <= dict(pairs).items()
        ]
        return sum(found) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """Everything that checks of a cluster decide on. Objects are as the API server has them, JSON's types alone."""

    now: datetime.datetime
    control_namespace: str = names.CONTROL_NAMESPACE
    asked: frozenset[str] = frozenset()  # the data plane of these namespaces alone; empty: of all that are labelled
    unreachable: str = ""
    # The cluster itself
    version: Fact[Object] = _NOT_ASKED
    clock: Fact[Clock] = _NOT_ASKED
    served: Fact[frozenset[str]] = _NOT_ASKED  # "apps/v1", "v1"; and "v1/serviceaccounts/token"
    nodes: Fact[Objects] = _NOT_ASKED
    namespaces: Fact[Objects] = _NOT_ASKED
    webhooks: Fact[Objects] = _NOT_ASKED  # MutatingWebhookConfigurations
    daemon_sets: Fact[Objects] = _NOT_ASKED
    dns: Fact[Objects] = _NOT_ASKED  # Services of the cluster's DNS
    rights: Fact[Mapping[Right, bool]] = _NOT_ASKED  # of whoever asks
    # The control namespace
    workloads: Fact[Objects] = _NOT_ASKED  # Deployments and StatefulSets, each with its kind
    control_pods: Fact[Objects] = _NOT_ASKED
    services: Fact[Objects] = _NOT_ASKED
    endpoints: Fact[Objects] = _NOT_ASKED
    budgets: Fact[Objects] = _NOT_ASKED
    leases: Fact[Objects] = _NOT_ASKED
    cluster_roles: Fact[Objects] = _NOT_ASKED
    cluster_bindings: Fact[Objects] = _NOT_ASKED
    roles: Fact[Objects] = _NOT_ASKED
    bindings: Fact[Objects] = _NOT_ASKED
    # The webhook
    serving: Fact[Serving] = _NOT_ASKED
    inside: Fact[DryRun] = _NOT_ASKED
    outside: Fact[DryRun] = _NOT_ASKED
    # What pods are told, by namespace
    bundles: Fact[Mapping[str, Published]] = _NOT_ASKED
    mesh_maps: Fact[Mapping[str, MeshMap]] = _NOT_ASKED
    policies: Fact[Sequence[Policy]] = _NOT_ASKED
    # The data plane
    pods: Fact[Objects] = _NOT_ASKED
    mesh_services: Fact[Objects] = _NOT_ASKED
    network_policies: Fact[Objects] = _NOT_ASKED
    scrapes: Fact[Mapping[str, Scrape]] = _NOT_ASKED  # by "namespace/name" of the pod

    @property
    def mesh_namespaces(self) -> tuple[str, ...]:
        """The namespaces whose pods get sidecars, in order. Raises Unknown."""
        return mesh_namespaces(self.namespaces.value, self.asked)


def mesh_namespaces(namespaces: Objects, asked: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """The names of the namespaces that are labelled, not on their way out and, where some are asked for, among them."""
    return tuple(
        sorted(
            name_of(one)
            for one in namespaces
            if pods.labels_of(one).get(names.NAMESPACE_LABEL) == "enabled"
            and not pods.part(one, "metadata").get("deletionTimestamp")
            and (not asked or name_of(one) in asked)
        )
    )


def name_of(found: Object) -> str:
    """The name of an object."""
    return str(pods.part(found, "metadata").get("name", "?"))


def namespace_of(found: Object) -> str:
    """The namespace of an object; "" where it is in none."""
    return str(pods.part(found, "metadata").get("namespace", ""))


def full_name(found: Object) -> str:
    """Namespace and name, as kubectl and people write them."""
    return f"{namespace_of(found)}/{name_of(found)}"


def moment(text: object) -> datetime.datetime | None:
    """A time as Kubernetes writes it (RFC 3339), or None."""
    try:
        read = datetime.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return read if read is None or read.tzinfo else None


def last_change(found: Object) -> datetime.datetime | None:
    """When somebody last changed an object, but for its status; its creation where that is not recorded."""
    metadata = pods.part(found, "metadata")
    times = [
        time
        for entry in pods.listed(metadata, "managedFields")
        if entry.get("subresource") != "status" and (time := moment(entry.get("time")))
    ]
    return max(times) if times else moment(metadata.get("creationTimestamp"))
