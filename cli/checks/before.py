"""What an installation needs of a cluster, and who else is there: `qbitel check --pre`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cli.checks.facts import SYSTEM_NAMESPACES, ClusterFacts, Object, Right, full_name, mesh_namespaces, name_of
from cli.checks.findings import Check, Finding, Group, Unknown, failure, named, passed, several, warning
from injector import pods
from injector.config import IGNORED_NAMESPACES
from mesh import names

_RBAC: Final = "rbac.authorization.k8s.io"
_ADMISSION: Final = "admissionregistration.k8s.io"
_AUTHENTICATION: Final = "authentication.k8s.io"
WEBHOOKS_SERVED: Final = f"{_ADMISSION}/v1"
TOKENS_SERVED: Final = "v1/serviceaccounts/token"
REVIEWS_SERVED: Final = f"{_AUTHENTICATION}/v1"
ISTIO_GROUP: Final = "security.istio.io/"
# What `kubectl apply -f deploy/qbitel.yaml` makes, where it makes it.
_CLUSTER_WIDE: Final = (
    ("namespaces", ""),
    ("clusterroles", _RBAC),
    ("clusterrolebindings", _RBAC),
    ("mutatingwebhookconfigurations", _ADMISSION),
)
_IN_NAMESPACE: Final = (
    ("serviceaccounts", ""),
    ("services", ""),
    ("secrets", ""),
    ("configmaps", ""),
    ("deployments", "apps"),
    ("statefulsets", "apps"),
    ("roles", _RBAC),
    ("rolebindings", _RBAC),
    ("poddisruptionbudgets", "policy"),
    ("networkpolicies", "networking.k8s.io"),
)
ESCALATION: Final = tuple(Right(verb, "clusterroles", _RBAC) for verb in ("escalate", "bind"))
# What baseline and restricted forbid and the init container needs: NET_ADMIN and NET_RAW, and root.
_FORBIDDING: Final = frozenset({"baseline", "restricted"})
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
# By what others' injectors are called: a part of the configuration's name → whose it is.
_OTHER_MESHES: Final = {
    "istio-sidecar-injector": "Istio",
    "istio-revision-tag": "Istio",
    "linkerd-proxy-injector": "Linkerd",
    "consul-connect-injector": "Consul",
    "kuma-admission": "Kuma",
    "osm-webhook": "Open Service Mesh",
}
# How a namespace asks for another mesh's sidecars: (label or annotation, values; none: whatever it says).
_ASKS: Final = (
    ("labels", "istio-injection", ("enabled",), "Istio"),
    ("labels", "istio.io/rev", (), "Istio"),
    ("annotations", "linkerd.io/inject", ("enabled", "ingress"), "Linkerd"),
    ("labels", "kuma.io/sidecar-injection", ("enabled", "true"), "Kuma"),
    ("labels", "openservicemesh.io/monitored-by", (), "Open Service Mesh"),
)
# By a part of the name of its DaemonSet: whether NetworkPolicies hold there.
_NETWORKS: Final = {
    "calico": True,
    "cilium": True,
    "canal": True,
    "antrea": True,
    "weave": True,
    "kube-router": True,
    "ovnkube": True,
    "azure-npm": True,
    "kindnet": True,
    "flannel": False,
}


def rights_wanted(control_namespace: str) -> tuple[Right, ...]:
    """What whoever installs must be allowed to do, and what would let him grant what he has not himself."""
    of_cluster = [
        Right(verb, resource, api) for resource, api in _CLUSTER_WIDE for verb in ("get", "create", "patch")
    ]  # fmt: skip
    inside = [
        Right(verb, resource, api, control_namespace)
        for resource, api in _IN_NAMESPACE
        for verb in ("get", "create", "patch")
    ]
    return (*of_cluster, *inside, *ESCALATION)


def check_rights_cluster(facts: ClusterFacts) -> Finding:
    """Whether who asks may make what is in no namespace."""
    return _rights(facts, "", "a cluster's administrator has to install (ClusterRole cluster-admin)")


def check_rights_namespace(facts: ClusterFacts) -> Finding:
    """Whether who asks may make what is in the control namespace."""
    where = facts.control_namespace
    fix = f"kubectl create rolebinding qbitel-installer -n {where} --clusterrole=admin --user=WHO"
    return _rights(facts, where, f"{fix}, or install as the cluster's administrator")


def check_rights_grant(facts: ClusterFacts) -> Finding:
    """Whether who asks may grant our programs their rights (RBAC lets nobody grant what he has not)."""
    rights = facts.rights.value
    if all(rights.get(one) for one in ESCALATION):
        return passed("may grant any right")
    return warning(
        "may grant our programs only what it may do itself",
        "install as the cluster's administrator, where `kubectl apply` says that a role is refused",
        [f"may not {one}" for one in ESCALATION if not rights.get(one)],
    )


def _rights(facts: ClusterFacts, namespace: str, fix: str) -> Finding:
    rights = {
        right: may
        for right, may in facts.rights.value.items()
        if right.namespace == namespace and right not in ESCALATION
    }
    missing = [f"may not {right}" for right, may in rights.items() if not may]
    if missing:
        return failure(f"{len(missing)} of {several(len(rights), 'right')} are missing", fix, missing)
    return passed(f"{several(len(rights), 'right')}, all granted")


def check_admission(facts: ClusterFacts) -> Finding:
    """Whether webhooks can be registered."""
    if WEBHOOKS_SERVED in facts.served.value:
        return passed(f"{WEBHOOKS_SERVED} is served")
    return failure(
        f"the API server does not serve {WEBHOOKS_SERVED}",
        "start it with that API, and with the admission plugin MutatingAdmissionWebhook (both are its defaults)",
    )


def check_tokens(facts: ClusterFacts) -> Finding:
    """Whether pods get tokens of an audience of ours, and whether they can be judged."""
    # A request for a token would make one, with whatever audience is asked for: that it can be made is enough.
    missing = [one for one in (TOKENS_SERVED, REVIEWS_SERVED) if one not in facts.served.value]
    if missing:
        return failure(
            f"the API server does not serve {' and '.join(missing)}",
            "start it with --service-account-issuer and --service-account-signing-key-file: sidecars prove who they "
            f"are by tokens of the audience {names.TOKEN_AUDIENCE}",
        )
    return passed("service-account tokens with an audience, and TokenReview")


def check_pod_security(facts: ClusterFacts) -> Finding:
    """Whether Pod Security lets the init container into the namespaces of the mesh."""
    forbidding = {
        name_of(one): level
        for one in facts.namespaces.value
        if (level := pods.labels_of(one).get(_ENFORCE)) in _FORBIDDING and name_of(one) not in IGNORED_NAMESPACES
    }
    fix = (
        "the init container needs NET_ADMIN and NET_RAW: kubectl label --overwrite namespace NAME "
        f"{_ENFORCE}=privileged, or leave the namespace out of the mesh"
    )
    in_mesh = [name for name in mesh_namespaces(facts.namespaces.value) if name in forbidding]
    if in_mesh:
        return failure(
            f"Pod Security forbids injected pods in {several(len(in_mesh), 'namespace')} of the mesh",
            fix,
            [f"{name}: {forbidding[name]}" for name in in_mesh],
        )
    if forbidding:
        return warning(
            f"Pod Security would forbid injected pods in {several(len(forbidding), 'namespace')}",
            fix,
            [f"{name}: {level}" for name, level in sorted(forbidding.items())],
        )
    return passed("no namespace forbids the init container")


def check_other_meshes(facts: ClusterFacts) -> Finding:
    """Whether another mesh would inject into the same pods."""
    both = [f"{name}: {', '.join(meshes)}" for name, meshes in _asked_twice(facts)]
    if both:
        return failure(
            f"{several(len(both), 'namespace')} asking for our sidecar and another mesh's",
            "a pod is in one mesh: take one of the labels away (kubectl label namespace NAME istio-injection-)",
            both,
        )
    present = {
        mesh: name_of(hook)
        for hook in facts.webhooks.value
        for part, mesh in _OTHER_MESHES.items()
        if part in name_of(hook)
    }
    if present:
        return warning(
            f"{' and '.join(sorted(present))} inject into this cluster, too",
            "give each namespace to one mesh; pods that have another's sidecar are refused by ours",
            [f"{mesh}: MutatingWebhookConfiguration {name}" for mesh, name in sorted(present.items())],
        )
    return passed("no other mesh injects here")


def _asked_twice(facts: ClusterFacts) -> Iterator[tuple[str, list[str]]]:
    ours = set(mesh_namespaces(facts.namespaces.value))
    for namespace in facts.namespaces.value:
        if name_of(namespace) in ours and (meshes := others_asked(namespace)):
            yield name_of(namespace), meshes


def others_asked(namespace: Object) -> list[str]:
    """The meshes beside ours that a namespace asks for."""
    found = [
        mesh
        for field, key, values, mesh in _ASKS
        if (said := pods.texts(namespace, "metadata", field).get(key)) is not None and (not values or said in values)
    ]
    return sorted(set(found))


def check_istio_resources(facts: ClusterFacts) -> Finding:
    """Whether policies can be Istio's resources here."""
    if any(one.startswith(ISTIO_GROUP) for one in facts.served.value):
        return passed("Istio's resources are there: policies come from them, and from labelled ConfigMaps")
    return passed(f"no Istio resources: policies come from ConfigMaps with the label {names.POLICY_LABEL}=true")


def check_network_plugin(facts: ClusterFacts) -> Finding:
    """Whether NetworkPolicies hold, as far as the network's DaemonSet tells."""
    found = {
        full_name(one): enforces
        for one in facts.daemon_sets.value
        for part, enforces in _NETWORKS.items()
        if part in name_of(one)
    }
    if not found:
        raise Unknown("no network plugin is known by its DaemonSet; see whether yours enforces NetworkPolicy")
    if any(found.values()):
        return passed(f"{named(sorted(one for one, enforces in found.items() if enforces))} enforces NetworkPolicy")
    return warning(
        f"{named(sorted(found))} does not enforce NetworkPolicy",
        "the control plane's NetworkPolicies have no effect then; nothing else depends on them",
    )


def check_dns(facts: ClusterFacts) -> Finding:
    """Whether pods can resolve the authority's name."""
    services = facts.dns.value
    if services:
        return passed(f"{named([full_name(one) for one in services])}")
    return warning(
        "kube-system has no Service of a cluster DNS (label k8s-app=kube-dns)",
        f"without one, sidecars cannot resolve {names.AUTHORITY_SERVICE}.{facts.control_namespace}.svc: give the "
        "authority's Service a fixed ClusterIP and name that (docs/installation.md)",
    )


def check_leftovers(facts: ClusterFacts) -> Finding:
    """Whether an earlier installation is there, or a part of one that stops pods."""
    present = {name_of(one) for one in facts.namespaces.value}
    hooks = [
        name_of(hook)
        for hook in facts.webhooks.value
        if name_of(hook) == names.WEBHOOK_NAME and not _namespaces_called(hook) & present
    ]
    if hooks:
        return failure(
            "the webhook of an earlier installation stands and its namespace is gone: no pod of the mesh can start",
            f"kubectl delete mutatingwebhookconfiguration {names.WEBHOOK_NAME}, or install again",
        )
    if facts.control_namespace in present:
        return warning(
            f"the namespace {facts.control_namespace} is there already",
            "nothing, if you mean to upgrade; `qbitel check` says how the installation is",
        )
    return passed("no earlier installation")


def _namespaces_called(hook: Object) -> set[str]:
    return {
        str(pods.part(one, "clientConfig", "service").get("namespace"))
        for one in pods.listed(hook, "webhooks")
        if pods.part(one, "clientConfig", "service")
    }


def check_namespace_labels(facts: ClusterFacts) -> Finding:
    """Whether the injection label says something that has an effect where it stands."""
    label = names.NAMESPACE_LABEL
    items = []
    for namespace in facts.namespaces.value:
        name, value = name_of(namespace), pods.labels_of(namespace).get(label)
        if value is not None and value not in ("enabled", "disabled"):
            items.append(f"{name}: {label}={value} is neither enabled nor disabled")
        elif value == "enabled" and name in IGNORED_NAMESPACES | SYSTEM_NAMESPACES | {facts.control_namespace}:
            items.append(f"{name}: pods there never get a sidecar")
    if items:
        return warning(f"{several(len(items), 'label')} without effect", f"write {label}=enabled, elsewhere", items)
    return passed(f"{several(len(mesh_namespaces(facts.namespaces.value)), 'namespace')} of the mesh")


CHECKS: Final = (
    Check("rights-cluster", Group.BEFORE, "who installs may make what is in no namespace", check_rights_cluster),
    Check(
        "rights-namespace",
        Group.BEFORE,
        "who installs may make what is in the control namespace",
        check_rights_namespace,
    ),
    Check("rights-grant", Group.BEFORE, "who installs may grant the programs their rights", check_rights_grant),
    Check("admission", Group.BEFORE, "admission webhooks can be registered", check_admission),
    Check("tokens", Group.BEFORE, "service-account tokens with an audience, and their review", check_tokens),
    Check("pod-security", Group.CLUSTER, "Pod Security lets the init container in", check_pod_security),
    Check("other-meshes", Group.CLUSTER, "no other mesh injects into the same namespaces", check_other_meshes),
    Check("istio-resources", Group.BEFORE, "whether policies can be Istio's resources", check_istio_resources),
    Check("network-plugin", Group.BEFORE, "the network plugin enforces NetworkPolicy", check_network_plugin),
    Check("dns", Group.CLUSTER, "the cluster has a DNS for the authority's name", check_dns),
    Check("leftovers", Group.BEFORE, "nothing of an earlier installation stands in the way", check_leftovers),
    Check(
        "namespace-labels", Group.CLUSTER, "the injection labels of namespaces have an effect", check_namespace_labels
    ),
)
