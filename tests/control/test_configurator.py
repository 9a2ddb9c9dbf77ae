"""MutualTLSConfigurator."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.configurator import MutualTLSConfigurator
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection
from mesh.decision import compile_policies
from mesh.documents import Document
from mesh.facts import Facts
from mesh.modes import MTLSMode
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from tests.mesh.building.strategies import LABELS, several
from tests.support.built import assert_good, assert_valid
from tests.support.istio_schemas import needs_schemas
from tests.support.junk import JUNK, taken_or_refused

HOST = "backend.production.svc.cluster.local"


@pytest.fixture
def configurator() -> MutualTLSConfigurator:
    return MutualTLSConfigurator()


# Modes


def test_the_mesh_is_governed_from_istio_s_root_namespace(configurator: MutualTLSConfigurator) -> None:
    made = configurator.create_mesh_wide_mtls()

    assert made["metadata"] == {"name": "default", "namespace": "istio-system"}
    assert made["spec"] == {"mtls": {"mode": "STRICT"}}


def test_a_mesh_may_have_another_root_namespace_and_another_default() -> None:
    made = MutualTLSConfigurator("PERMISSIVE", root_namespace="qbitel-system").create_mesh_wide_mtls()

    assert made["metadata"]["namespace"] == "qbitel-system"
    assert made["spec"] == {"mtls": {"mode": "PERMISSIVE"}}


@pytest.mark.parametrize(
    ("mode", "word"),
    [(MTLSMode.STRICT, "STRICT"), ("DISABLE", "DISABLE"), ("UNSET", "UNSET"), (None, "PERMISSIVE")],
)
def test_a_mode_is_a_mode_or_its_name(mode: MTLSMode | str | None, word: str) -> None:
    configurator = MutualTLSConfigurator(MTLSMode.PERMISSIVE)

    assert configurator.create_namespace_mtls("production", mode)["spec"] == {"mtls": {"mode": word}}


def test_pods_may_differ_from_their_namespace_and_ports_from_their_pods(configurator: MutualTLSConfigurator) -> None:
    made = configurator.create_workload_mtls("web", "production", {"app": "web"}, "UNSET", port_modes={8080: "DISABLE"})

    assert made["spec"] == {
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": "UNSET"},
        "portLevelMtls": {"8080": {"mode": "DISABLE"}},
    }
    assert_good(made)


# Destination rules


def test_quantum_safe_tls_is_istio_s_mutual_tls_with_our_annotation(configurator: MutualTLSConfigurator) -> None:
    made = configurator.create_destination_rule("backend", HOST, "production", enable_quantum_tls=True)

    assert made["metadata"]["annotations"] == {"qbitel.io/profile": "qbitel"}
    assert made["spec"] == {"host": HOST, "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}
    assert_good(made)


def test_the_profile_is_the_rule_s_or_the_configurator_s() -> None:
    configurator = MutualTLSConfigurator(profile="hybrid-l5")
    usual = configurator.create_destination_rule("a", HOST, "production")
    other = configurator.create_destination_rule("b", HOST, "production", profile="cnsa2")

    assert usual["metadata"]["annotations"] == {"qbitel.io/profile": "hybrid-l5"}
    assert other["metadata"]["annotations"] == {"qbitel.io/profile": "cnsa2"}


def test_without_it_nothing_is_said_about_tls(configurator: MutualTLSConfigurator) -> None:
    silent = configurator.create_destination_rule("backend", HOST, "production", enable_quantum_tls=False)
    plain = configurator.create_destination_rule("backend", HOST, "production", False, tls_mode="DISABLE")

    assert silent["spec"] == {"host": HOST}
    assert plain["spec"] == {"host": HOST, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
    assert "annotations" not in silent["metadata"] | plain["metadata"]


def test_a_rule_takes_all_that_one_host_needs(configurator: MutualTLSConfigurator) -> None:
    made = configurator.create_destination_rule(
        "backend",
        HOST,
        "production",
        connection_pool=ConnectionPool(max_connections=1),
        outlier_detection=OutlierDetection(interval=1),
        load_balancer=LoadBalancer("RANDOM"),
        subsets={"v1": {"version": "v1"}},
        export_to=["."],
    )

    assert set(made["spec"]["trafficPolicy"]) == {"connectionPool", "outlierDetection", "loadBalancer", "tls"}
    assert_good(made)


# Authorization


def test_rules_are_istio_s(configurator: MutualTLSConfigurator) -> None:
    rules = [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]
    made = configurator.create_authorization_policy("jwt", "default", "ALLOW", rules, selector={"app": "api"})

    assert made["spec"] == {"selector": {"matchLabels": {"app": "api"}}, "action": "ALLOW", "rules": rules}


def test_zero_trust_denies_everything_and_then_allows_each_service(configurator: MutualTLSConfigurator) -> None:
    made = configurator.create_zero_trust_policy("production", ["frontend", "backend"])

    assert [one["metadata"]["name"] for one in made] == ["deny-all", "allow-frontend", "allow-backend"]
    assert made[0]["spec"] == {}
    assert made[1]["spec"] == {
        "selector": {"matchLabels": {"app": "frontend"}},
        "action": "ALLOW",
        "rules": [
            {
                "from": [
                    {
                        "source": {
                            "principals": [
                                "cluster.local/ns/production/sa/frontend",
                                "cluster.local/ns/production/sa/backend",
                            ]
                        }
                    }
                ]
            }
        ],
    }
    assert_good(*made)


def test_others_may_be_let_in_and_probes_kept_open(configurator: MutualTLSConfigurator) -> None:
    *_, allow, health = configurator.create_zero_trust_policy(
        "production",
        ["web"],
        additional_sources=["istio-system/gateway", "web"],
        health_ports=[8086],
        selector_label="app.kubernetes.io/name",
    )

    assert allow["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/name": "web"}}
    assert allow["spec"]["rules"] == [
        {
            "from": [
                {
                    "source": {
                        "principals": ["cluster.local/ns/production/sa/web", "cluster.local/ns/istio-system/sa/gateway"]
                    }
                }
            ]
        }
    ]
    assert health["metadata"]["name"] == "health-ports"
    assert health["spec"] == {"action": "ALLOW", "rules": [{"to": [{"operation": {"ports": ["8086"]}}]}]}


def allowed(resources: list[dict[str, Any]], caller: str | None, called: str, port: int = 8080) -> bool:
    """Whether a sidecar of the pods of service `called` lets the service account `caller` in."""
    found = ResourceSet.of([Document(one, "here", {}) for one in resources])
    assert not found.errors
    workload = Workload("production", {"app": called}, called)
    principal = None if caller is None else f"cluster.local/ns/production/sa/{caller}"
    return compile_policies(found.authorization_policies, workload).decide(Facts(port, principal)).allowed


def test_by_zero_trust_only_the_named_services_reach_one_another(configurator: MutualTLSConfigurator) -> None:
    policies = configurator.create_zero_trust_policy("production", ["frontend", "backend"], health_ports=[8086])

    for caller in ("frontend", "backend"):
        for called in ("frontend", "backend"):
            assert allowed(policies, caller, called)
    assert not allowed(policies, "stranger", "backend")
    assert not allowed(policies, "frontend", "stranger")
    assert not allowed(policies, None, "backend")
    assert allowed(policies, None, "backend", 8086)


def test_with_nobody_named_nobody_is_let_in(configurator: MutualTLSConfigurator) -> None:
    (policy,) = configurator.create_zero_trust_policy("production", [])

    assert not allowed([policy], "frontend", "frontend")


@settings(max_examples=20)
@given(LABELS, several(LABELS, 0), several(LABELS, 0))
def test_any_zero_trust_is_good(namespace: str, services: list[str], others: list[str]) -> None:
    made = MutualTLSConfigurator().create_zero_trust_policy(
        namespace, services, additional_sources=[f"other/{name}" for name in others]
    )

    assert len(made) == 1 + len(services)
    assert_good(*made)


@settings(max_examples=20)
@given(LABELS, several(LABELS, 0))
def test_any_zero_trust_is_valid_by_istio_s_schema(namespace: str, services: list[str]) -> None:
    needs_schemas()
    assert_valid(*MutualTLSConfigurator().create_zero_trust_policy(namespace, services))


# Bad input

NAMED: dict[str, Any] = {"name": "web", "namespace": "production"}


@pytest.mark.parametrize(
    ("method", "arguments", "argument"),
    [
        ("create_mesh_wide_mtls", {"mode": "strict"}, "mode"),
        ("create_namespace_mtls", {"namespace": "Production"}, "namespace"),
        ("create_namespace_mtls", {"namespace": "istio-system"}, "namespace"),
        ("create_namespace_mtls", {"namespace": "production", "mode": 1}, "mode"),
        ("create_workload_mtls", {**NAMED, "selector": None}, "selector"),
        ("create_workload_mtls", {**NAMED, "selector": {}}, "selector"),
        ("create_workload_mtls", {"name": "a", "namespace": "istio-system", "selector": {"a": "b"}}, "namespace"),
        ("create_workload_mtls", {**NAMED, "selector": {"a": "b"}, "port_modes": {0: "STRICT"}}, "port_modes"),
        ("create_destination_rule", {**NAMED, "host": "a b"}, "host"),
        ("create_destination_rule", {**NAMED, "host": HOST, "enable_quantum_tls": "yes"}, "enable_quantum_tls"),
        ("create_destination_rule", {**NAMED, "host": HOST, "tls_mode": "DISABLE"}, "tls_mode"),
        ("create_destination_rule", {**NAMED, "host": HOST, "tls_mode": ["DISABLE"]}, "tls_mode"),
        ("create_destination_rule", {**NAMED, "host": HOST, "profile": "kyber"}, "profile"),
        (
            "create_destination_rule",
            {**NAMED, "host": HOST, "profile": "cnsa2", "enable_quantum_tls": False},
            "profile",
        ),
        ("create_authorization_policy", {**NAMED, "action": "CUSTOM", "rules": [{}]}, "action"),
        ("create_authorization_policy", {**NAMED, "action": "deny", "rules": [{}]}, "action"),
        ("create_authorization_policy", {**NAMED, "rules": [{"form": []}]}, r"rules\[0\]"),
        ("create_zero_trust_policy", {"namespace": "istio-system", "allowed_services": []}, "namespace"),
        ("create_zero_trust_policy", {"namespace": "kube-system", "allowed_services": []}, "namespace"),
        ("create_zero_trust_policy", {"namespace": "a", "allowed_services": "web"}, "allowed_services"),
        ("create_zero_trust_policy", {"namespace": "a", "allowed_services": None}, "allowed_services"),
        ("create_zero_trust_policy", {"namespace": "a", "allowed_services": ["a", "a"]}, r"allowed_services\[1\]"),
        ("create_zero_trust_policy", {"namespace": "a", "allowed_services": ["a/b"]}, r"allowed_services\[0\]"),
        (
            "create_zero_trust_policy",
            {"namespace": "a", "allowed_services": ["b"], "selector_label": "a b"},
            "selector_label",
        ),
        (
            "create_zero_trust_policy",
            {"namespace": "a", "allowed_services": [], "health_ports": ["80"]},
            r"health_ports\[0\]",
        ),
        (
            "create_zero_trust_policy",
            {"namespace": "a", "allowed_services": [], "additional_sources": "b"},
            "additional_sources",
        ),
        ("verify_mtls_configuration", {"source_service": "A", "dest_service": "b"}, "source_service"),
        ("verify_mtls_configuration", {"source_service": "a", "dest_service": ""}, "dest_service"),
        ("verify_mtls_configuration", {"source_service": "a", "dest_service": "b", "namespace": "-"}, "namespace"),
        ("verify_mtls_configuration", {"source_service": "a", "dest_service": "b", "port": 0}, "port"),
        ("verify_mtls_configuration", {"source_service": "a", "dest_service": "b", "path": 1}, "path"),
        ("verify_mtls_configuration", {"source_service": "a", "dest_service": "b", "resources": "x"}, "resources"),
    ],
)
def test_wrong_arguments_are_refused_by_their_names(
    configurator: MutualTLSConfigurator, method: str, arguments: dict[str, Any], argument: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        getattr(configurator, method)(**arguments)

    assert configurator.resources == []


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"default_mode": "strict"}, "default_mode"),
        ({"default_mode": "UNSET"}, "default_mode"),
        ({"default_mode": None}, "default_mode"),
        ({"trust_domain": "Cluster"}, "trust_domain"),
        ({"trust_domain": None}, "trust_domain"),
        ({"root_namespace": "a.b"}, "root_namespace"),
        ({"profile": "kyber"}, "profile"),
    ],
)
def test_a_configurator_of_no_mesh_is_refused(wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        MutualTLSConfigurator(**wrong)


# What was written


def test_what_was_written_is_remembered_and_cannot_be_changed_from_outside(configurator: MutualTLSConfigurator) -> None:
    configurator.create_mesh_wide_mtls(MTLSMode.PERMISSIVE)
    made = configurator.create_mesh_wide_mtls(MTLSMode.STRICT)
    made["spec"]["mtls"]["mode"] = "DISABLE"
    configurator.resources[0]["spec"]["mtls"]["mode"] = "DISABLE"

    assert [one["spec"] for one in configurator.resources] == [{"mtls": {"mode": "STRICT"}}]


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("create_mesh_wide_mtls", {}),
    ("create_namespace_mtls", {"namespace": "production"}),
    ("create_workload_mtls", {**NAMED, "selector": {"app": "web"}}),
    ("create_destination_rule", {**NAMED, "host": HOST}),
    ("create_authorization_policy", {**NAMED, "rules": [{}]}),
    ("create_zero_trust_policy", {"namespace": "production", "allowed_services": ["web"]}),
]


@pytest.mark.parametrize(("method", "call"), CALLS)
def test_anything_for_an_argument_is_taken_rightly_or_refused_by_its_name(method: str, call: dict[str, Any]) -> None:
    build = getattr(MutualTLSConfigurator(), method)

    @settings(max_examples=40)
    @given(st.sampled_from(list(inspect.signature(build).parameters)), JUNK)
    def check(argument: str, junk: object) -> None:
        made = taken_or_refused(build, call, argument, junk)
        if made is not None:
            assert_good(*([made] if isinstance(made, dict) else made))

    check()
