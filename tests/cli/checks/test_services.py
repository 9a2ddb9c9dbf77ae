"""What is found of Services, service accounts and NetworkPolicies around the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from cli.checks import services
from tests.cli.checks.rig import PASS, SKIPPED, WARNING, found, good, pod, status

CHECKS = services.CHECKS


def service(**port: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "shop"}
    return {"metadata": metadata, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, **port}]}}


@pytest.mark.parametrize(
    ("port", "wanted"),
    [
        ({"name": "http-web"}, PASS),
        ({"name": "redis"}, WARNING),
        ({"port": 5432, "name": "http"}, WARNING),
        ({"port": 5432, "name": "http", "appProtocol": "postgres"}, PASS),
        ({"protocol": "UDP", "port": 53}, WARNING),
    ],
)
def test_a_port_is_called_what_it_is(port: dict[str, Any], wanted: Any) -> None:
    assert status(CHECKS, "service-ports", mesh_services=[service(**port)]) is wanted


def test_a_service_with_a_sidecar_in_some_of_its_pods_is_a_warning() -> None:
    mixed = [pod("a"), pod("b", injected=False)]
    one = found(CHECKS, "services-mixed", good(mesh_services=[service()], pods=mixed))
    assert (one.status, one.items) == (WARNING, ("shop/web: 1 of 2 pods",))
    assert status(CHECKS, "services-mixed", mesh_services=[service()]) is PASS


def test_workloads_that_share_the_default_account_are_a_warning() -> None:
    owners = [{"ownerReferences": [{"name": f"{name}-abc"}], "labels": {"pod-template-hash": "abc"}} for name in "ab"]
    sharing = [
        pod(f"{number}", serviceAccountName="default", metadata=owner) for number, owner in enumerate(owners)
    ]  # fmt: skip
    one = found(CHECKS, "service-accounts", good(pods=sharing))
    assert (one.status, one.items) == (WARNING, ("shop: 2 workloads (a, b)",))
    replicas = [pod(f"{number}", serviceAccountName="default", metadata=owners[0]) for number in range(2)]
    assert status(CHECKS, "service-accounts", pods=replicas) is PASS


def network_policy(name: str, *ports: dict[str, Any], rules: int = 1, **spec: Any) -> dict[str, Any]:
    egress = [{"ports": list(ports)} if ports else {}] * rules
    made = {"policyTypes": ["Egress"], "egress": egress, "podSelector": {}, **spec}
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": made}


@pytest.mark.parametrize(
    ("policies", "wanted"),
    [
        ([network_policy("deny", rules=0)], WARNING),
        ([network_policy("dns", {"port": 53, "protocol": "UDP"})], WARNING),
        ([network_policy("web", {"port": 80})], WARNING),
        ([network_policy("authority", {"port": 15012})], PASS),
        ([network_policy("range", {"port": 15000, "endPort": 15100})], PASS),
        ([network_policy("all")], PASS),
        ([network_policy("deny", rules=0), network_policy("authority", {"port": 15012})], PASS),
        ([network_policy("in", rules=0, policyTypes=["Ingress"])], PASS),
    ],
)
def test_network_policies_let_sidecars_out_to_the_authority(policies: list[Any], wanted: Any) -> None:
    assert status(CHECKS, "egress", network_policies=policies) is wanted


def test_a_sidecar_outside_of_the_mesh_is_a_warning() -> None:
    assert status(CHECKS, "sidecars-stray", pods=[pod(where="default")]) is WARNING
    assert status(CHECKS, "sidecars-stray", pods=[]) is SKIPPED
