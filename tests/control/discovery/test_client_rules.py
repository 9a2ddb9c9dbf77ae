"""DestinationRules of a cluster: which Services they are about, and which rules the sidecars of others have to know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from control.discovery.client_rules import NO_RULES, ClientRules, client_rules
from control.discovery.policies import Part, part_of, read_resource

ROOT = "istio-system"
LIMIT = {"connectionPool": {"tcp": {"maxConnections": 2}}}
ORDERS = "orders.shop.svc.cluster.local"


def rule(
    host: str = "orders", policy: Any = LIMIT, name: str = "a", namespace: str = "shop", **more: Any
) -> dict[str, Any]:
    spec = {"host": host, **({} if policy is None else {"trafficPolicy": policy}), **more.pop("spec", {})}
    return {"metadata": {"name": name, "namespace": namespace, **more}, "spec": spec}


def part(*rules: dict[str, Any]) -> Part:
    made, faults = part_of(read_resource(one, "networking.istio.io/v1", "DestinationRule") for one in rules)
    assert faults == ()
    return made


def found(*rules: dict[str, Any]) -> ClientRules:
    return client_rules([part(one) for one in rules], ROOT)


def published(*rules: dict[str, Any]) -> list[str]:
    return [json.loads(line)["metadata"]["name"] for line in found(*rules).lines]


def test_a_service_that_a_rule_is_about_is_named_and_the_rule_is_published() -> None:
    made = found(rule())
    assert made.name("shop", "orders") == ORDERS
    assert made.name("shop", "stock") is None
    assert made.name("bank", "orders") is None
    (line,) = made.lines
    assert json.loads(line)["spec"] == {"host": "orders", "trafficPolicy": LIMIT}


@pytest.mark.parametrize("host", ["*.shop.svc.cluster.local", "*.svc.cluster.local", "*.local", "*"])
def test_a_wildcard_is_about_all_that_it_covers(host: str) -> None:
    made = found(rule(host))
    assert made.name("shop", "orders") == ORDERS
    assert (made.name("bank", "b") is None) == (host == "*.shop.svc.cluster.local")
    assert len(made.lines) == 1


@pytest.mark.parametrize(
    "other",
    [
        rule(ORDERS, namespace="bank"),  # of what is another's nobody but its own clients hear
        rule("*.shop.svc.cluster.local", namespace="bank"),
        rule("api.example.com"),
        rule(namespace=ROOT, host="*.local"),  # each sidecar has those of the root namespace among its policies
        rule(spec={"exportTo": ["."]}),
        rule(spec={"exportTo": ["shop"]}),
        rule(spec={"workloadSelector": {"matchLabels": {"app": "web"}}}),
    ],
)
def test_what_means_nothing_to_clients_of_other_namespaces_is_not_published(other: dict[str, Any]) -> None:
    assert found(other).lines == ()
    assert found(other)  # and it names Services, because it means something to some


def test_what_is_exported_to_some_is_published_and_says_to_whom() -> None:
    (line,) = found(rule(spec={"exportTo": ["bank"]})).lines
    assert json.loads(line)["spec"]["exportTo"] == ["bank"]


@pytest.mark.parametrize(
    "policy",
    [
        None,
        {"loadBalancer": {"simple": "RANDOM"}},
        {"outlierDetection": {}},
        {"tls": {"mode": "SIMPLE"}},
        {"connectionPool": {"http": {"maxRetries": 3}}},
        {"connectionPool": {"tcp": {"maxConnections": 0}}},
    ],
)
def test_a_rule_that_no_sidecar_would_do_anything_for_names_nothing(policy: Any) -> None:
    assert found(rule(policy=policy)) == NO_RULES
    # Where another rule is about the same host it may be in the way of that, and counts.
    assert published(rule(policy=policy), rule(name="b")) == ["a", "b"]


@pytest.mark.parametrize(
    "policy",
    [
        {"tls": {"mode": "DISABLE"}},
        {"tls": {"mode": "ISTIO_MUTUAL"}},
        {"connectionPool": {"tcp": {"connectTimeout": "1s"}}},
        {"connectionPool": {"http": {"http1MaxPendingRequests": 1}}},
        {"portLevelSettings": [{"port": {"number": 80}, **LIMIT}]},
    ],
)
def test_whatever_a_sidecar_follows_names_the_service(policy: Any) -> None:
    assert found(rule(policy=policy)).name("shop", "orders") == ORDERS


def test_a_profile_names_the_service_too() -> None:
    assert found(rule(policy=None, annotations={"qbitel.io/profile": "cnsa2"})).name("shop", "orders") == ORDERS


def test_subsets_are_left_out_because_they_come_and_go_with_each_roll_out() -> None:
    subsets = [{"name": "v2", "labels": {"version": "v2"}}]
    assert found(rule(spec={"subsets": subsets})).lines == found(rule()).lines
