"""Which workloads and Services there are, as far as documents say: Deployments, Pods, Services …

Policies name labels, principals and ports of pods; people name Services. This is where the one becomes the other.
What is read here is Kubernetes' own and was judged there: a document whose shape is wrong is left out with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.documents import Document, Problem
from mesh.selectors import Workload

# Where a kind keeps the pod that it makes.
_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
KINDS: Final = frozenset({*_TEMPLATES, "Service"})
_DEFAULT_NAMESPACE: Final = "default"
# Kubernetes gives a pod that names no account this one.
_DEFAULT_ACCOUNT: Final = "default"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service and what it is on the pods behind it: a number, or the name of a container's port."""

    number: int
    target: int | str
    name: str = ""
    protocol: str = ""  # what its appProtocol, or else its name, says: http, grpc, tcp …; "" where neither says


@dataclass(frozen=True, slots=True)
class Service:
    """A Service of the cluster."""

    namespace: str
    name: str
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]

    def selects(self, workload: Workload) -> bool:
        """Whether the pods of `workload` stand behind this Service; behind one without a selector stands none."""
        return (
            workload.namespace == self.namespace
            and bool(self.selector)
            and all(workload.labels.get(key) == value for key, value in self.selector.items())
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class KnownWorkload:
    """A workload that a document makes, with the names of its containers' ports."""

    workload: Workload
    kind: str
    ports: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """What a name turned out to stand for."""

    workloads: tuple[Workload, ...]  # at least one
    service: Service | None
    assumed: str  # what had to be assumed, as a sentence; "" where documents say it
    port_names: Mapping[str, int] = field(default_factory=dict)

    def port_on_pods(self, number: int) -> int:
        """The pods' port behind a Service's port, or `number` itself where the Service has none such."""
        for port in self.service.ports if self.service else ():
            if port.number == number:
                return port.target if isinstance(port.target, int) else self.port_names.get(port.target, number)
        return number

    def port_of_service(self, number: int) -> int | None:
        """The Service's port that `number` names, be it the Service's own or the pods'; None where there is none."""
        ports = self.service.ports if self.service else ()
        for port in ports:
            if port.number == number:
                return number
        return next((port.number for port in ports if self.port_on_pods(port.number) == number), None)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The workloads and Services of a set of documents."""

    services: tuple[Service, ...] = ()
    workloads: tuple[KnownWorkload, ...] = ()
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Inventory:
        """Read what is known here (KINDS) and pass over everything else."""
        services: list[Service] = []
        workloads: list[KnownWorkload] = []
        problems: list[Problem] = []
        for document in documents:
            kind = document.value.get("kind")
            if not isinstance(kind, str) or kind not in KINDS or not _is_kubernetes(document.value, kind):
                continue
            try:
                if kind == "Service":
                    services.append(_service(document.value))
                else:
                    workloads.append(_workload(document.value, kind))
            except _Unreadable as fault:
                message = f"is not read: {fault}; names are taken as if it were not here"
                problems.append(document.problem((), message, "warning"))
        return cls(tuple(services), tuple(workloads), tuple(problems))

    def find(self, namespace: str, name: str) -> Place:
        """What `name` stands for: a Service and the pods behind it, else a workload, else what names usually mean.

        Where no document says more, `name` is taken for pods with the label app=`name` and the service account `name`.
        """
        known = [one for one in self.workloads if one.workload.namespace == namespace]
        service = next((one for one in self.services if (one.namespace, one.name) == (namespace, name)), None)
        if service is not None and service.selector:
            behind = [one for one in known if service.selects(one.workload)]
            if behind:
                port_names = {name: port for one in reversed(behind) for name, port in one.ports.items()}
                return Place(tuple(one.workload for one in behind), service, "", port_names)
            pods = Workload(namespace, dict(service.selector), name, name)
            return Place((pods,), service, f"the pods behind Service {service} have the service account {name}")
        for one in known:
            if one.workload.name == name:
                its = next((other for other in self.services if other.selects(one.workload)), None)
                return Place((one.workload,), its, "", one.ports)
        pods = Workload(namespace, {"app": name}, name, name)
        assumed = f"the pods of {namespace}/{name} have the label app={name} and the service account {name}"
        return Place((pods,), service, assumed)


class _Unreadable(Exception):
    """A document is not what its kind says."""


def _is_kubernetes(value: Mapping[str, Any], kind: str) -> bool:
    """Whether the kind is Kubernetes' own: others have a Service too (serving.knative.dev)."""
    api = value.get("apiVersion")
    return api == "v1" or (kind != "Service" and isinstance(api, str) and api.partition("/")[0] in {"apps", "batch"})


def _service(value: Mapping[str, Any]) -> Service:
    namespace, name = _names(value)
    spec = _map(value.get("spec"), "spec")
    return Service(
        namespace,
        name,
        _texts(spec.get("selector"), "spec.selector"),
        tuple(_service_port(_map(port, "spec.ports")) for port in _list(spec.get("ports"), "spec.ports")),
    )


def _service_port(port: Mapping[str, Any]) -> ServicePort:
    number, name = port.get("port"), port.get("name") or ""
    target = port.get("targetPort", number)
    if not isinstance(number, int) or not isinstance(target, int | str) or not isinstance(name, str):
        raise _Unreadable("spec.ports has an item that is no port")
    # Istio's rule: appProtocol wins, otherwise the name up to its first dash says what is spoken.
    protocol = port.get("appProtocol") or name.partition("-")[0]
    return ServicePort(number, target, name, str(protocol))


def _workload(value: Mapping[str, Any], kind: str) -> KnownWorkload:
    namespace, name = _names(value)
    template: Mapping[str, Any] = value
    for step in _TEMPLATES[kind]:
        template = _map(template.get(step), step)
    labels = _texts(_map(template.get("metadata"), "metadata").get("labels"), "metadata.labels")
    spec = _map(template.get("spec"), "spec")
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or _DEFAULT_ACCOUNT
    ports = {
        port["name"]: port["containerPort"]
        for container in _list(spec.get("containers"), "spec.containers")
        for port in _list(_map(container, "spec.containers").get("ports"), "ports")
        if isinstance(port, Mapping)
        and isinstance(port.get("name"), str)
        and isinstance(port.get("containerPort"), int)
    }
    return KnownWorkload(Workload(namespace, labels, str(account), name), kind, ports)


def _names(value: Mapping[str, Any]) -> tuple[str, str]:
    metadata = _map(value.get("metadata"), "metadata")
    name, namespace = metadata.get("name"), metadata.get("namespace", _DEFAULT_NAMESPACE)
    if not isinstance(name, str) or not isinstance(namespace, str):
        raise _Unreadable("metadata has no name")
    return namespace, name


def _map(value: object, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _Unreadable(f"{name} is no map")
    return value


def _list(value: object, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _Unreadable(f"{name} is no list")
    return value


def _texts(value: object, name: str) -> dict[str, str]:
    found = _map(value, name)
    if not all(isinstance(one, str) for one in found.values()):
        raise _Unreadable(f"{name} has a value that is no string")
    return dict(found)
