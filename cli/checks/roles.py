"""Whether the control plane has rights beyond those that it is shipped with (docs/operations.md, "Rights")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cli.checks.facts import ClusterFacts, Object, Objects, name_of, namespace_of
from cli.checks.findings import Check, Finding, Group, failure, passed, several
from injector import pods
from mesh import names

_ROLE_OF_SERVICE_SECRETS: Final = "qbitel-certmgr-service-secrets"  # Secrets mode, which an operator grants knowingly
# What none of our programs needs, and what makes whoever has it master of the cluster.
_NEVER_VERBS: Final = frozenset({"*", "escalate", "bind", "impersonate"})
_NEVER_RESOURCES: Final = frozenset(
    {
        *("*", "pods/exec", "pods/attach", "pods/ephemeralcontainers", "nodes/proxy", "serviceaccounts/token"),
        *("certificatesigningrequests/approval", "clusterroles", "clusterrolebindings", "roles", "rolebindings"),
    }
)
_WRITING: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})
# What no program of ours ever writes: whoever may create pods can be anybody.
_NEVER_WRITTEN: Final = frozenset({"pods", "deployments", "statefulsets", "daemonsets", "jobs", "cronjobs", "nodes"})


def check_rights_narrow(facts: ClusterFacts) -> Finding:
    """Whether a program of the control plane may do what it never needs."""
    items = [*_of_cluster(facts), *_of_namespace(facts)]
    if items:
        return failure(
            f"the control plane has {several(len(items), 'right')} that it does not need",
            "take them away: kubectl apply the shipped roles again, and delete the bindings that are none of them",
            items,
        )
    return passed("no program of the control plane may do more than it needs to")


def _of_cluster(facts: ClusterFacts) -> Iterator[str]:
    roles = {name_of(role): role for role in facts.cluster_roles.value}
    for binding in facts.cluster_bindings.value:
        name = str(pods.part(binding, "roleRef").get("name"))
        for account in _accounts(binding, facts.control_namespace):
            yield from _faults(account, f"ClusterRole {name}", roles.get(name), everywhere=True)


def _of_namespace(facts: ClusterFacts) -> Iterator[str]:
    roles = {("Role", name_of(role)): role for role in facts.roles.value}
    roles |= {("ClusterRole", name_of(role)): role for role in facts.cluster_roles.value}
    for binding in facts.bindings.value:
        reference = pods.part(binding, "roleRef")
        kind, name = str(reference.get("kind")), str(reference.get("name"))
        for account in _accounts(binding, facts.control_namespace):
            if namespace_of(binding) == facts.control_namespace:
                yield from _faults(account, f"{kind} {name}", roles.get((kind, name)), everywhere=False)


def _accounts(binding: Object, control_namespace: str) -> Iterator[str]:
    """The service accounts of ours that a binding is for, by name or by group."""
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{control_namespace}"}
    for subject in pods.listed(binding, "subjects"):
        name = str(subject.get("name"))
        is_account = subject.get("kind") == "ServiceAccount" and subject.get("namespace") == control_namespace
        is_group = subject.get("kind") == "Group" and name in groups and not _is_kubernetes_own(binding)
        if is_account or is_group:
            yield name


def _is_kubernetes_own(binding: Object) -> bool:
    return name_of(binding).startswith("system:")


def _faults(account: str, role_name: str, role: Object | None, *, everywhere: bool) -> Iterator[str]:
    if role is None:
        return  # a binding to a role that is not there grants nothing
    for rule in pods.listed(role, "rules"):
        verbs, resources = (frozenset(map(str, rule.get(field) or ())) for field in ("verbs", "resources"))
        for what in _too_much(account, role_name, verbs, resources, everywhere=everywhere):
            yield f"{account} may {what} ({role_name})"


def _too_much(
    account: str, role_name: str, verbs: frozenset[str], resources: frozenset[str], *, everywhere: bool
) -> Iterator[str]:
    told = f"{','.join(sorted(verbs))} {','.join(sorted(resources)) or 'URLs'}"
    if account == names.WEBHOOK_NAME:
        yield f"{told}: the webhook has no right at all"
    elif verbs & _NEVER_VERBS or resources & _NEVER_RESOURCES or (verbs & _WRITING and resources & _NEVER_WRITTEN):
        yield told
    elif "secrets" in resources and account != names.AUTHORITY_SERVICE:
        yield f"{told}: only the authority reads Secrets"
    elif "secrets" in resources and everywhere and role_name != f"ClusterRole {_ROLE_OF_SERVICE_SECRETS}":
        yield f"{told} in every namespace"


def roles_bound(bindings: Objects, control_namespace: str) -> frozenset[str]:
    """The names of the ClusterRoles that service accounts of the control namespace have."""
    return frozenset(
        str(pods.part(binding, "roleRef").get("name"))
        for binding in bindings
        if pods.part(binding, "roleRef").get("kind") == "ClusterRole" and any(_accounts(binding, control_namespace))
    )


CHECKS: Final = (
    Check("rights-narrow", Group.CONTROL, "the control plane's rights are no wider than shipped", check_rights_narrow),
)
