"""What is found of a cluster before an installation, and of others in it."""

from __future__ import annotations

import pytest

from cli.checks import before
from cli.checks.facts import Right
from tests.cli.checks.rig import (
    FAILURE,
    HOME,
    PASS,
    SKIPPED,
    WARNING,
    found,
    good,
    namespace,
    status,
    webhook_configuration,
)

CHECKS = before.CHECKS
_PSA = {"pod__security_o_kubernetes_o_io_s_enforce": "restricted"}


def test_a_right_that_is_missing_is_named_and_belongs_to_one_check() -> None:
    rights = dict.fromkeys(before.rights_wanted(HOME), True)
    assert [status(CHECKS, one, rights=rights) for one in ("rights-cluster", "rights-namespace", "rights-grant")] == [
        PASS
    ] * 3
    rights[Right("create", "deployments", "apps", HOME)] = False
    one = found(CHECKS, "rights-namespace", good(rights=rights))
    assert (one.status, one.items) == (FAILURE, (f"may not create deployments.apps in {HOME}",))
    assert status(CHECKS, "rights-cluster", rights=rights) is PASS
    rights[Right("create", "clusterroles", "rbac.authorization.k8s.io")] = False
    assert status(CHECKS, "rights-cluster", rights=rights) is FAILURE
    rights[before.ESCALATION[0]] = False
    assert status(CHECKS, "rights-grant", rights=rights) is WARNING


@pytest.mark.parametrize("name", ["admission", "tokens"])
def test_an_api_that_is_not_served_is_a_failure(name: str) -> None:
    assert status(CHECKS, name, served=frozenset({"v1", "authentication.k8s.io/v1"})) is FAILURE


def test_tokens_of_an_audience_and_their_review_are_enough() -> None:
    assert status(CHECKS, "tokens", served=frozenset({before.TOKENS_SERVED, before.REVIEWS_SERVED})) is PASS


def test_pod_security_matters_where_the_mesh_is() -> None:
    inside = namespace("shop", qbitel__injection="enabled", **_PSA)
    assert status(CHECKS, "pod-security", namespaces=[inside]) is FAILURE
    assert status(CHECKS, "pod-security", namespaces=[namespace("shop", **_PSA)]) is WARNING
    assert status(CHECKS, "pod-security", namespaces=[namespace(HOME, **_PSA)]) is PASS


def test_a_namespace_is_of_one_mesh() -> None:
    both = namespace("shop", qbitel__injection="enabled", istio__injection="enabled")
    one = found(CHECKS, "other-meshes", good(namespaces=[both]))
    assert (one.status, one.items) == (FAILURE, ("shop: Istio",))
    linkerd = namespace("shop", {"linkerd.io/inject": "enabled"}, qbitel__injection="enabled")
    assert status(CHECKS, "other-meshes", namespaces=[linkerd]) is FAILURE
    hooks = [webhook_configuration(), {"metadata": {"name": "istio-sidecar-injector"}}]
    assert status(CHECKS, "other-meshes", webhooks=hooks) is WARNING


def test_istio_s_resources_are_told_and_not_demanded() -> None:
    assert "ConfigMaps" in found(CHECKS, "istio-resources", good()).detail
    assert (
        "Istio's resources" in found(CHECKS, "istio-resources", good(served=frozenset({"security.istio.io/v1"}))).detail
    )


@pytest.mark.parametrize(("plugin", "wanted"), [("cilium", PASS), ("kube-flannel-ds", WARNING), ("other", SKIPPED)])
def test_a_network_plugin_is_known_by_its_daemon_set(plugin: str, wanted: object) -> None:
    sets = [{"metadata": {"name": plugin, "namespace": "kube-system"}}]
    assert status(CHECKS, "network-plugin", daemon_sets=sets) is wanted


def test_without_a_cluster_dns_there_is_a_warning() -> None:
    assert status(CHECKS, "dns", dns=[]) is WARNING


def test_a_webhook_whose_namespace_is_gone_stops_pods() -> None:
    assert status(CHECKS, "leftovers", namespaces=[namespace("default")]) is FAILURE
    assert status(CHECKS, "leftovers") is WARNING
    assert status(CHECKS, "leftovers", namespaces=[namespace("default")], webhooks=[]) is PASS


def test_a_label_without_effect_is_told() -> None:
    found_ = [namespace("shop", qbitel__injection="true"), namespace("kube-system", qbitel__injection="enabled")]
    assert len(found(CHECKS, "namespace-labels", good(namespaces=found_)).items) == 2
