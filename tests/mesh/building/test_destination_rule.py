"""DestinationRule."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.client_tls import ClientTls
from mesh.building.destination_rule import destination_rule, visibility
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy
from tests.support.built import assert_good

HOST = "web.shop.svc.cluster.local"


def test_a_rule_says_how_a_host_is_dialled() -> None:
    made = destination_rule(
        "web",
        "shop",
        HOST,
        tls_mode="ISTIO_MUTUAL",
        profile="cnsa2",
        connection_pool=ConnectionPool(max_connections=100),
        outlier_detection=OutlierDetection(consecutive_5xx_errors=5),
        load_balancer=LoadBalancer("LEAST_REQUEST"),
        subsets={"v1": {"version": "v1"}},
        export_to=["."],
    )

    assert made == {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"qbitel.io/profile": "cnsa2"}},
        "spec": {
            "host": HOST,
            "trafficPolicy": {
                "connectionPool": {"tcp": {"maxConnections": 100}},
                "outlierDetection": {"consecutive5xxErrors": 5},
                "loadBalancer": {"simple": "LEAST_REQUEST"},
                "tls": {"mode": "ISTIO_MUTUAL"},
            },
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
            "exportTo": ["."],
        },
    }
    assert_good(made)


def test_ports_and_subsets_may_have_policies_of_their_own() -> None:
    made = destination_rule(
        "web",
        "shop",
        HOST,
        tls_mode="ISTIO_MUTUAL",
        ports={9090: TrafficPolicy(tls="DISABLE"), 8080: TrafficPolicy(load_balancer=LoadBalancer("RANDOM"))},
        subsets={"v1": {"version": "v1"}, "v2": {"version": "v2"}},
        subset_policies={"v2": TrafficPolicy(connection_pool=ConnectionPool(max_connections=1))},
    )

    assert made["spec"]["trafficPolicy"] == {
        "tls": {"mode": "ISTIO_MUTUAL"},
        "portLevelSettings": [
            {"port": {"number": 9090}, "tls": {"mode": "DISABLE"}},
            {"port": {"number": 8080}, "loadBalancer": {"simple": "RANDOM"}},
        ],
    }
    assert made["spec"]["subsets"] == [
        {"name": "v1", "labels": {"version": "v1"}},
        {
            "name": "v2",
            "labels": {"version": "v2"},
            "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 1}}},
        },
    ]
    assert_good(made)


def test_a_server_outside_of_the_mesh_is_dialled_by_its_own_certificates() -> None:
    tls = ClientTls(mode="MUTUAL", credential_name="partner", sni="api.partner.example")
    made = destination_rule("partner", "shop", "api.partner.example", tls=tls)

    assert made["spec"]["trafficPolicy"] == {
        "tls": {"mode": "MUTUAL", "credentialName": "partner", "sni": "api.partner.example"}
    }
    assert_good(made)


def test_a_traffic_policy_that_would_be_empty_is_left_out() -> None:
    assert destination_rule("web", "shop", HOST, connection_pool=ConnectionPool())["spec"] == {"host": HOST}


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"host": ""}, "host"),
        ({"host": "web.shop:80"}, "host"),
        ({"host": "10.0.0.1"}, "host"),
        ({"tls_mode": "MUTUAL"}, "tls_mode"),
        ({"tls_mode": "istio_mutual"}, "tls_mode"),
        ({"profile": "qbitel2"}, "profile"),
        ({"connection_pool": {"tcp": {"maxConnections": -1}}}, "connection_pool"),
        ({"outlier_detection": LoadBalancer()}, "outlier_detection"),
        ({"load_balancer": "RANDOM"}, "load_balancer"),
        ({"subsets": {}}, "subsets"),
        ({"subsets": {"V1": {"version": "v1"}}}, "subsets"),
        ({"subsets": {"v1": {}}}, r"subsets\['v1'\]"),
        ({"tls": "SIMPLE"}, "tls"),
        ({"tls": ClientTls(mode="SIMPLE", ca_certificates="system"), "tls_mode": "DISABLE"}, "tls"),
        ({"ports": {}}, "ports"),
        ({"ports": {0: TrafficPolicy(tls="DISABLE")}}, "ports"),
        ({"ports": {80: TrafficPolicy()}}, r"ports\[80\]"),
        ({"ports": {80: "DISABLE"}}, r"ports\[80\]"),
        ({"subset_policies": {}}, "subset_policies"),
        ({"subset_policies": {"v1": TrafficPolicy(tls="DISABLE")}}, "subset_policies"),
        (
            {"subsets": {"v1": {"version": "v1"}}, "subset_policies": {"v1": TrafficPolicy()}},
            r"subset_policies\['v1'\]",
        ),
        ({"export_to": "*"}, "export_to"),
        ({"export_to": ["*", "shop"]}, "export_to"),
        ({"export_to": [".", "shop"]}, "export_to"),
        ({"export_to": ["~"]}, r"export_to\[0\]"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], argument: str) -> None:
    call: dict[str, Any] = {"name": "web", "namespace": "shop", "host": HOST}

    with pytest.raises(ValueError, match=rf"^{argument}: "):
        destination_rule(**call | wrong)


def test_nobody_may_see_what_can_be_hidden() -> None:
    assert visibility("export_to", ["~"], "shop", nobody=True) == ["~"]
    with pytest.raises(ValueError, match=r"^export_to: '~' stands alone"):
        visibility("export_to", ["~", "."], "shop", nobody=True)
