"""What stands around the pods of the mesh: Services, service accounts, NetworkPolicies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from cli.checks.facts import ClusterFacts, Object, Objects, full_name, namespace_of
from cli.checks.findings import Check, Finding, Group, Unknown, passed, several, warning
from cli.checks.sidecars import alive
from injector import pods
from injector.status import is_injected
from mesh import names

# Kubernetes gives a pod that names no account this one.
DEFAULT_ACCOUNT: Final = "default"
# By the part of a port's name before its first dash (Istio's rule): what is not spoken on a port that everybody knows.
_WEB: Final = frozenset({80, 443, 8080, 8443})
_DATABASES: Final = frozenset({3306, 5432, 6379, 27017, 9042, 5672, 1433})
_HTTP: Final = frozenset({"http", "http2", "grpc"})
_OTHERS: Final = frozenset({"mysql", "postgres", "postgresql", "redis", "mongo", "mongodb", "amqp"})


def check_ports(facts: ClusterFacts) -> Finding:
    """Whether Services' ports are called what they are."""
    items = [
        f"{full_name(service)}: {fault}" for service in facts.mesh_services.value for fault in faults_of_ports(service)
    ]
    if items:
        return warning(
            f"{several(len(items), 'port')} of Services called what they probably are not",
            "write appProtocol or another name: policies and dashboards go by it; connections are carried all the same",
            items,
        )
    return passed(f"{several(len(facts.mesh_services.value), 'Service')}")


def faults_of_ports(service: Object) -> Iterator[str]:
    """What is odd about the ports of one Service."""
    for port in pods.listed(pods.part(service, "spec"), "ports"):
        number, name = port.get("port"), str(port.get("name") or "")
        said = str(port.get("appProtocol") or name.partition("-")[0]).lower()
        told = f"port {number} ({name or 'without a name'})"
        if port.get("protocol", "TCP") != "TCP":
            yield f"{told} is {port['protocol']}, which passes the sidecar by, as plaintext"
        elif (said in _HTTP and number in _DATABASES) or (said in _OTHERS and number in _WEB):
            yield f"{told} says that it speaks {said}"


def check_mixed(facts: ClusterFacts) -> Finding:
    """Whether behind each Service all pods have a sidecar, or none."""
    by_namespace: dict[str, list[Object]] = defaultdict(list)
    for pod in alive(facts.pods.value):
        by_namespace[namespace_of(pod)].append(pod)
    items = []
    for service in facts.mesh_services.value:
        selector = pods.texts(service, "spec", "selector")
        behind = [
            pod
            for pod in by_namespace[namespace_of(service)]
            if selector and selector.items() <= pods.labels_of(pod).items()
        ]
        having = sum(1 for pod in behind if is_injected(pod))
        if 0 < having < len(behind):
            items.append(f"{full_name(service)}: {having} of {several(len(behind), 'pod')}")
    if items:
        return warning(
            f"{several(len(items), 'Service')} with a sidecar in only some of the pods behind",
            "kubectl rollout restart what has none: until then such a Service is not reached by TLS of the mesh alone",
            items,
        )
    return passed("behind each Service all pods have a sidecar, or none")


def check_accounts(facts: ClusterFacts) -> Finding:
    """Whether workloads can be told from each other: by their service accounts, in identities and policies."""
    sharing: dict[str, set[str]] = defaultdict(set)
    for pod in alive(facts.pods.value):
        account = str(pods.part(pod, "spec").get("serviceAccountName") or DEFAULT_ACCOUNT)
        if account == DEFAULT_ACCOUNT and is_injected(pod):
            sharing[namespace_of(pod)].add(_workload(pod))
    items = [
        f"{namespace}: {several(len(workloads), 'workload')} ({', '.join(sorted(workloads)[:5])})"
        for namespace, workloads in sorted(sharing.items())
        if len(workloads) > 1
    ]
    if items:
        return warning(
            f"in {several(len(items), 'namespace')} workloads share the service account {DEFAULT_ACCOUNT}",
            "give each its own (spec.serviceAccountName): policies cannot tell them apart, and one that is broken into "
            "has the identity of all",
            items,
        )
    return passed("workloads have service accounts of their own")


def _workload(pod: Object) -> str:
    """The name of what makes a pod, without the hash of a Deployment's revision."""
    owner = next(iter(pods.listed(pods.part(pod, "metadata"), "ownerReferences")), None)
    if owner is None:
        return full_name(pod).partition("/")[2]
    name, revision = str(owner.get("name")), pods.labels_of(pod).get("pod-template-hash", "")
    return name.removesuffix(f"-{revision}") if revision else name


def check_egress(facts: ClusterFacts) -> Finding:
    """Whether NetworkPolicies let pods of the mesh out to the authority."""
    items = [
        f"{full_name(policy)} lets nothing out to TCP port {names.AUTHORITY_PORT}"
        for policy in facts.network_policies.value
        if _holds_back(policy) and not _lets_out(policy, facts.network_policies.value)
    ]
    if items:
        return warning(
            f"{several(len(items), 'NetworkPolicy', 'NetworkPolicies')} that may keep sidecars from the authority",
            f"allow egress to TCP {names.AUTHORITY_PORT} of the namespace {facts.control_namespace} (and to port "
            f"{names.INBOUND_PORT} and {names.TUNNEL_PORT} of other pods, where ports are named)",
            items,
        )
    return passed(f"{several(len(facts.network_policies.value), 'NetworkPolicy', 'NetworkPolicies')}")


def _holds_back(policy: Object) -> bool:
    spec = pods.part(policy, "spec")
    return "Egress" in (spec.get("policyTypes") or ()) and not _opens(pods.listed(spec, "egress"))


def _lets_out(policy: Object, others: Objects) -> bool:
    """Whether another policy of the namespace, for all of its pods, opens the port: policies add up."""
    return any(
        namespace_of(other) == namespace_of(policy)
        and not pods.part(other, "spec", "podSelector")
        and _opens(pods.listed(pods.part(other, "spec"), "egress"))
        for other in others
        if other is not policy
    )


def _opens(rules: Iterable[Object]) -> bool:
    for rule in rules:
        ports = pods.listed(rule, "ports")
        if not ports or any(_is_for_authority(port) for port in ports):
            return True
    return False


def _is_for_authority(port: Object) -> bool:
    first, last = port.get("port"), port.get("endPort")
    if port.get("protocol", "TCP") != "TCP":
        return False
    if isinstance(first, int) and isinstance(last, int):
        return first <= names.AUTHORITY_PORT <= last
    return first is None or first == names.AUTHORITY_PORT or isinstance(first, str)  # a name may be any number


def check_stray(facts: ClusterFacts) -> Finding:
    """Whether pods run with a sidecar where nobody brings it roots and policies."""
    meshed = set(facts.mesh_namespaces)
    items = [full_name(pod) for pod in alive(facts.pods.value) if is_injected(pod) and namespace_of(pod) not in meshed]
    if items:
        return warning(
            f"{several(len(items), 'pod')} with a sidecar in namespaces that are not of the mesh",
            f"kubectl label namespace NAME {names.NAMESPACE_LABEL}=enabled: the authority publishes its roots there",
            items,
        )
    if not facts.pods.value:
        raise Unknown("there is no pod")
    return passed("every sidecar is in a namespace of the mesh")


CHECKS: Final = (
    Check("sidecars-stray", Group.DATA, "sidecars are in namespaces of the mesh alone", check_stray),
    Check("services-mixed", Group.DATA, "behind a Service all pods have a sidecar, or none", check_mixed),
    Check("service-ports", Group.DATA, "ports of Services are called what they are", check_ports),
    Check("service-accounts", Group.DATA, "workloads do not share the account default", check_accounts),
    Check("egress", Group.DATA, "NetworkPolicies let sidecars out to the authority", check_egress),
)
