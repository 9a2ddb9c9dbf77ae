"""Manifests and policies in files: what would become of them in the mesh, before anybody applies them."""

from __future__ import annotations

import importlib.metadata
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.checks import services
from cli.checks.before import others_asked
from cli.checks.facts import Object
from cli.checks.findings import Check, Finding, Group, Status, failure, passed, several, skipped, warning
from cli.injection import rendered
from control.folder import Reading, read_path, read_text
from injector import pods, workloads
from injector.config import InjectorConfig
from injector.decide import Namespace
from injector.inject import Injected, Injector
from injector.refusal import PodRefused
from mesh import names
from mesh.conflicts import of_set
from mesh.documents import Document, Problem
from mesh.resource_changes import governs
from mesh.resources import ResourceSet

STANDARD_INPUT: Final = "-"
_MOST_INPUT: Final = 16 << 20  # more than is read of one text, which says so
_DEFAULT_NAMESPACE: Final = "default"  # Kubernetes' own, where a manifest names none
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_FORBIDDING: Final = frozenset({"baseline", "restricted"})
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
# Containers of other meshes, and what of them is written into manifests by hand or by their own `inject`.
_FOREIGN_CONTAINERS: Final = frozenset(
    {"istio-proxy", "istio-init", "linkerd-proxy", "linkerd-init", "istio-validation"}
)
_FOREIGN_KEYS: Final = ("sidecar.istio.io/inject", "sidecar.istio.io/status", "istio.io/rev", "linkerd.io/inject")
# Istio's resources that a sidecar of connections leaves alone.
_NOT_FOLLOWED: Final = frozenset({"Gateway", "EnvoyFilter", "WasmPlugin", "Telemetry", "ProxyConfig", "WorkloadEntry"})


@dataclass(frozen=True, slots=True)
class FoundPod:
    """A pod, or the template of one, in a file; `outcome` is what the webhook would do, or why it would refuse."""

    place: str
    name: str
    kind: str
    namespace: str
    pod: Object
    outcome: Injected | PodRefused

    def __str__(self) -> str:
        return f"{self.place}: {self.name}"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What stands in some files."""

    documents: Sequence[Document]
    problems: Sequence[Problem]
    sources: Sequence[str]
    pods: Sequence[FoundPod]
    resources: ResourceSet


def read(paths: Sequence[str], namespaces: Sequence[str], *, control_namespace: str) -> FileFacts:
    """Read files, folders and what is in them, or `-`. Raises UserError for a path that cannot be looked into."""
    reading = Reading()
    for path in paths:
        if path == STANDARD_INPUT:
            reading += read_text(sys.stdin.buffer.read(_MOST_INPUT), "standard input")
        else:
            reading += read_path(Path(path), recursive=True)
    return facts_of(reading, namespaces[0] if namespaces else _DEFAULT_NAMESPACE, control_namespace)


def facts_of(reading: Reading, namespace: str, control_namespace: str) -> FileFacts:
    """What was read, as the webhook and the sidecars see it; `namespace` is of what names none itself."""
    injector = Injector(
        config=InjectorConfig(control_namespace=control_namespace),
        render_script=rendered,
        version=importlib.metadata.version("qbitel-mesh"),
    )
    labels = {
        str(pods.part(one.value, "metadata").get("name")): pods.labels_of(one.value).get(names.NAMESPACE_LABEL)
        for one in reading.documents
        if _is_namespace(one.value)
    }
    found = tuple(_pods(reading.documents, injector, labels, namespace))
    resources = ResourceSet.of(reading.documents, root_namespace=control_namespace)
    return FileFacts(reading.documents, reading.problems, reading.sources, found, resources)


def _pods(
    documents: Sequence[Document], injector: Injector, labels: Mapping[str, str | None], default: str
) -> Iterator[FoundPod]:
    for document in documents:
        path = workloads.path_of_pod(document.value)
        if path is None:
            continue
        pod = workloads.pod_of(document.value, path)
        namespace = str(pods.part(document.value, "metadata").get("namespace") or default)
        name = workloads.name_of(document.value)
        # A namespace that no file shows is taken for one of the mesh: that is what is asked about.
        where = Namespace(namespace, labels.get(namespace, "enabled"))
        outcome: Injected | PodRefused
        try:
            outcome = injector.inject(pod, where, name.partition("/")[2] if path else "")
        except PodRefused as refusal:
            outcome = refusal
        yield FoundPod(_place(document), name, str(document.value.get("kind")), namespace, pod, outcome)


def check_readable(facts: FileFacts) -> Finding:
    """Whether the files can be read."""
    if facts.problems:
        return failure(
            f"{several(len(facts.problems), 'fault')} in {several(len(facts.sources), 'file')}",
            "mend them; templates (Helm, Kustomize) must be rendered first",
            [str(one) for one in facts.problems],
        )
    if not facts.documents:
        return failure("there is nothing in them", "name files or folders with .yaml, .yml or .json files")
    return passed(f"{several(len(facts.sources), 'file')}, {several(len(facts.documents), 'resource')}")


def check_refused(facts: FileFacts) -> Finding:
    """Whether a pod would be refused."""
    items = [f"{one}: {one.outcome}" for one in facts.pods if isinstance(one.outcome, PodRefused)]
    if items:
        return failure(f"{several(len(items), 'pod')} would be refused", "each says what to change", items)
    return _of_pods(facts, "none is refused")


def check_injected(facts: FileFacts) -> Finding:
    """Which pods would get a sidecar."""
    injected = _injected(facts)
    without = [
        f"{one}: {one.outcome.decision.reason}"
        for one in facts.pods
        if isinstance(one.outcome, Injected) and not one.outcome.decision.inject
    ]
    if without and not injected:
        return warning("no pod would get a sidecar", "see the reasons; `qbitel inject --explain` says more", without)
    return _of_pods(facts, f"{len(injected)} would get a sidecar", without)


def check_annotations(facts: FileFacts) -> Finding:
    """What the webhook would warn of: unknown annotations, contradictions, ports that are taken."""
    items = [
        f"{one}: {text}" for one in facts.pods if isinstance(one.outcome, Injected) for text in one.outcome.warnings
    ]
    if items:
        return warning(several(len(items), "warning"), "the annotations are described in docs/injection.md", items)
    return _of_pods(facts, "the webhook would say nothing")


def check_probes(facts: FileFacts) -> Finding:
    """Whether probes ask ports that there are."""
    unnamed, undeclared = [], []
    for one in facts.pods:
        for _, container in pods.containers(one.pod):
            ports = pods.listed(container, "ports")
            known_names, numbers = {port.get("name") for port in ports}, {port.get("containerPort") for port in ports}
            for probe, port in _probed(container):
                told = f"{one}: {container.get('name')}: {probe} asks port {port}"
                if isinstance(port, str) and not port.isdigit() and port not in known_names:
                    unnamed.append(f"{told}, which no port of the container is called")
                elif ports and isinstance(port, int) and port not in numbers:
                    undeclared.append(f"{told}, which the container does not declare")
    if unnamed:
        return failure(
            f"{several(len(unnamed), 'probe')} of a port that is not there", "name the port", unnamed + undeclared
        )
    if undeclared:
        return warning(f"{several(len(undeclared), 'probe')} of a port that is not declared", "declare it", undeclared)
    return _of_pods(facts, "probes ask ports that are there")


def _probed(container: Object) -> Iterator[tuple[str, Any]]:
    for probe in _PROBES:
        for handler in ("httpGet", "tcpSocket", "grpc"):
            port = pods.part(container, probe, handler).get("port")
            if port is not None:
                yield probe, port


def check_host_network(facts: FileFacts) -> Finding:
    """Which pods are in the host's network, where they cannot have a sidecar."""
    items = [str(one) for one in facts.pods if pods.part(one.pod, "spec").get("hostNetwork") is True]
    if items:
        return warning(
            f"{several(len(items), 'pod')} in the host's network get no sidecar: their traffic is plaintext",
            "leave hostNetwork out where it is not needed; under STRICT nobody in the mesh answers them",
            items,
        )
    return _of_pods(facts, "none is in the host's network")


def check_user(facts: FileFacts) -> Finding:
    """Whether a container has the sidecar's user, whose traffic is never captured."""
    items = []
    for one in facts.pods:
        whole = pods.part(one.pod, "spec", "securityContext")
        for _, container in pods.containers(one.pod):
            own = pods.part(container, "securityContext")
            if container.get("name") not in pods.OURS and any(
                own.get(field, whole.get(field)) == number
                for field, number in (("runAsUser", names.SIDECAR_UID), ("runAsGroup", names.SIDECAR_GID))
            ):
                items.append(f"{one}: {container.get('name')}")
    if items:
        return failure(
            f"{several(len(items), 'container')} with the sidecar's user or group, {names.SIDECAR_UID}",
            "give them another: their traffic would neither be captured nor encrypted",
            items,
        )
    return _of_pods(facts, f"no container is user {names.SIDECAR_UID}")


def check_namespaces(facts: FileFacts) -> Finding:
    """Whether namespaces that ask for the mesh can have it."""
    found = [one for one in facts.documents if _is_namespace(one.value)]
    items = []
    for one in found:
        labels = pods.labels_of(one.value)
        label = labels.get(names.NAMESPACE_LABEL)
        if label not in (None, "enabled", "disabled"):
            items.append(f"{_place(one)}: {names.NAMESPACE_LABEL}={label} is neither enabled nor disabled")
        if label == "enabled" and labels.get(_ENFORCE) in _FORBIDDING:
            items.append(f"{_place(one)}: Pod Security {labels[_ENFORCE]} forbids the init container (NET_ADMIN)")
        if label == "enabled" and (others := others_asked(one.value)):
            items.append(f"{_place(one)}: it asks for {' and '.join(others)}, too")
    if items:
        return failure(
            f"{several(len(items), 'fault')} of namespaces",
            f"write {names.NAMESPACE_LABEL}: enabled, {_ENFORCE}: privileged, and ask for one mesh",
            items,
        )
    return passed(several(len(found), "namespace")) if found else skipped("no namespace in these files")


def check_policies(facts: FileFacts) -> Finding:
    """What is wrong with the policies."""
    policies = [one for one in facts.documents if governs(one)]
    if not policies:
        return skipped("no policy in these files")
    about = {(one.source, one.resource) for one in policies}
    problems = [
        one
        for one in dict.fromkeys((*facts.resources.problems, *of_set(facts.resources)))
        if (one.source, one.resource) in about or one.severity != "note"
    ]
    count = Counter(one.severity for one in problems)
    items = [f"{one.severity}: {one}" for one in problems if one.severity != "note"]
    if items:
        told = failure if count["error"] else warning
        return told(
            f"{several(count['error'], 'error')} and {several(count['warning'], 'warning')}",
            "`qbitel policy check` says them with notes; a sidecar acts on no set with errors",
            items,
        )
    return passed(several(len(policies), "policy", "policies"))


def check_other_meshes(facts: FileFacts) -> Finding:
    """What is left of another mesh."""
    items = []
    for one in facts.pods:
        containers = {str(container.get("name")) for _, container in pods.containers(one.pod)}
        items += [f"{one}: its container {name} is another mesh's" for name in sorted(containers & _FOREIGN_CONTAINERS)]
        said = pods.annotations_of(one.pod) | pods.labels_of(one.pod)
        items += [f"{one}: {key} has no effect here" for key in _FOREIGN_KEYS if key in said]
    for document in facts.documents:
        value = document.value
        if _is_namespace(value) and (others := others_asked(value)):
            items.append(f"{_place(document)}: it asks for {' and '.join(others)}")
        if str(value.get("apiVersion")).partition("/")[0].endswith("istio.io") and value.get("kind") in _NOT_FOLLOWED:
            items.append(f"{_place(document)}: a sidecar of ours follows no {value['kind']}")
    if items:
        return warning(
            f"{several(len(items), 'part')} of another mesh", "take them out once nobody needs them there", items
        )
    return passed("nothing of another mesh")


def check_accounts(facts: FileFacts) -> Finding:
    """Whether workloads share the account `default`."""
    sharing: dict[str, list[str]] = defaultdict(list)
    for one in _injected(facts):
        account = pods.part(one.pod, "spec").get("serviceAccountName")
        if account in (None, services.DEFAULT_ACCOUNT):
            sharing[one.namespace].append(str(one))
    items = [line for lines in sharing.values() if len(lines) > 1 for line in lines]
    if items:
        return warning(
            f"{several(len(items), 'workload')} share the service account {services.DEFAULT_ACCOUNT}",
            "give each its own (spec.serviceAccountName): policies cannot tell them apart",
            items,
        )
    return _of_pods(facts, "workloads have service accounts of their own")


def check_ports(facts: FileFacts) -> Finding:
    """Whether Services' ports are called what they are."""
    found = [
        one for one in facts.documents if one.value.get("kind") == "Service" and one.value.get("apiVersion") == "v1"
    ]
    items = [f"{_place(one)}: {fault}" for one in found for fault in services.faults_of_ports(one.value)]
    if items:
        return warning(
            f"{several(len(items), 'port')} of Services called what they probably are not",
            "write appProtocol or another name; connections are carried all the same",
            items,
        )
    return passed(several(len(found), "Service")) if found else skipped("no Service in these files")


def _of_pods(facts: FileFacts, detail: str, items: Sequence[str] = ()) -> Finding:
    if not facts.pods:
        return skipped("no pod in these files")
    return Finding(Status.PASS, f"{several(len(facts.pods), 'pod')}: {detail}", "", tuple(items[:100]))


def _injected(facts: FileFacts) -> list[FoundPod]:
    return [one for one in facts.pods if isinstance(one.outcome, Injected) and one.outcome.decision.inject]


def _is_namespace(value: Object) -> bool:
    return value.get("kind") == "Namespace" and value.get("apiVersion") == "v1"


def _place(document: Document) -> str:
    return f"{document.source}:{document.line()}"


CHECKS: Final = (
    Check("files-readable", Group.FILES, "files are YAML or JSON of Kubernetes", check_readable),
    Check("files-refused", Group.FILES, "no pod would be refused by the webhook", check_refused),
    Check("files-injected", Group.FILES, "which pods would get a sidecar", check_injected),
    Check(
        "files-annotations", Group.FILES, "annotations are known and do not contradict each other", check_annotations
    ),
    Check("files-probes", Group.FILES, "probes ask ports that there are", check_probes),
    Check("files-host-network", Group.FILES, "no pod is in the host's network", check_host_network),
    Check("files-user", Group.FILES, "no container has the sidecar's user", check_user),
    Check("files-namespaces", Group.FILES, "namespaces that ask for the mesh can have it", check_namespaces),
    Check("files-policies", Group.FILES, "nothing is wrong with the policies", check_policies),
    Check("files-other-meshes", Group.FILES, "nothing is left of another mesh", check_other_meshes),
    Check("files-accounts", Group.FILES, "workloads do not share the account default", check_accounts),
    Check("files-ports", Group.FILES, "ports of Services are called what they are", check_ports),
)
