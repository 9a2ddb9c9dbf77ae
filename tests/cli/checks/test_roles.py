"""Rights of the control plane that are wider than shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.checks import roles
from mesh.documents import read_documents
from tests.cli.checks.rig import FAILURE, HOME, PASS, found, good

MANIFESTS = Path(__file__).parents[3] / "deploy" / "qbitel.yaml"


def rule(verbs: str, resources: str) -> dict[str, Any]:
    return {"apiGroups": [""], "verbs": verbs.split(), "resources": resources.split()}


def bound(account: str, *rules: dict[str, Any], kind: str = "ClusterRole", role: str = "some") -> dict[str, Any]:
    """Facts with one role for one account."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": HOME}
    binding = {
        "metadata": {"name": role, "namespace": HOME},
        "roleRef": {"kind": kind, "name": role},
        "subjects": [subject],
    }
    made = {"metadata": {"name": role, "namespace": HOME}, "rules": list(rules)}
    if kind == "ClusterRole":
        return {"cluster_roles": [made], "cluster_bindings": [binding]}
    return {"roles": [made], "bindings": [binding]}


@pytest.mark.parametrize(
    ("account", "given"),
    [
        ("qbitel-certmgr", rule("*", "configmaps")),
        ("qbitel-certmgr", rule("get", "*")),
        ("qbitel-certmgr", rule("create", "pods/exec")),
        ("qbitel-certmgr", rule("list", "secrets")),
        ("qbitel-discovery", rule("create", "pods")),
        ("qbitel-discovery", rule("get", "secrets")),
        ("qbitel-sidecar-injector", rule("get", "pods")),
    ],
)
def test_a_right_that_no_program_needs_is_a_failure(account: str, given: dict[str, Any]) -> None:
    assert found(roles.CHECKS, "rights-narrow", good(**bound(account, given))).status is FAILURE


@pytest.mark.parametrize(
    "facts",
    [
        bound("qbitel-certmgr", rule("get list create", "secrets"), kind="Role"),
        bound("qbitel-certmgr", rule("list", "secrets"), role="qbitel-certmgr-service-secrets"),
        bound("qbitel-discovery", rule("list watch", "pods services namespaces")),
    ],
)
def test_what_a_program_needs_is_no_fault(facts: dict[str, Any]) -> None:
    assert found(roles.CHECKS, "rights-narrow", good(**facts)).status is PASS


def test_a_group_of_all_accounts_counts_and_kubernetes_own_bindings_do_not() -> None:
    facts = bound("x", rule("*", "*"))
    (binding,) = facts["cluster_bindings"]
    binding["subjects"] = [{"kind": "Group", "name": f"system:serviceaccounts:{HOME}"}]
    assert found(roles.CHECKS, "rights-narrow", good(**facts)).status is FAILURE
    binding["metadata"]["name"] = "system:service-account-issuer-discovery"
    assert found(roles.CHECKS, "rights-narrow", good(**facts)).status is PASS


def test_the_shipped_roles_are_narrow() -> None:
    documents, problems = read_documents(MANIFESTS.read_bytes(), "deploy")
    assert problems == ()
    by_kind: dict[str, list[Any]] = {}
    for one in documents:
        by_kind.setdefault(str(one.value["kind"]), []).append(one.value)
    facts = good(
        cluster_roles=by_kind["ClusterRole"],
        cluster_bindings=by_kind["ClusterRoleBinding"],
        roles=by_kind["Role"],
        bindings=by_kind["RoleBinding"],
    )
    assert roles.roles_bound(by_kind["ClusterRoleBinding"], HOME) >= {"qbitel-certmgr", "qbitel-discovery"}
    assert found(roles.CHECKS, "rights-narrow", facts).status is PASS
