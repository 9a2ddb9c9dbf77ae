"""AuthorizationPolicy."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.building.authorization_policy import authorization_policy, pattern, service_account_principal
from tests.support.built import assert_good, assert_valid
from tests.support.junk import JUNK, taken_or_refused

RULE = {
    "from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}],
    "to": [{"operation": {"methods": ["GET", "POST"], "paths": ["/orders/*"]}}],
    "when": [{"key": "request.auth.claims[iss]", "values": ["https://auth.example.com"]}],
}


def test_allow_without_rules_is_the_empty_spec_that_allows_nothing() -> None:
    made = authorization_policy("deny-all", "shop")

    assert made["spec"] == {}
    assert_good(made)


def test_rules_are_written_as_they_were_given() -> None:
    made = authorization_policy("web", "shop", "DENY", [RULE, {}], selector={"app": "web"})

    assert made["spec"] == {"selector": {"matchLabels": {"app": "web"}}, "action": "DENY", "rules": [RULE, {}]}
    assert_good(made)


def test_an_external_authorizer_is_named() -> None:
    rule = {"to": [{"operation": {"paths": ["/admin/*"]}}], "from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}
    made = authorization_policy("web", "shop", "CUSTOM", [rule], provider="opa")

    assert made["spec"] == {"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [rule]}


def test_a_dry_run_is_istio_s_annotation() -> None:
    made = authorization_policy("web", "shop", "DENY", [{}], dry_run=True, annotations={"qbitel.io/note": "a"})

    assert made["metadata"]["annotations"] == {"istio.io/dry-run": "true", "qbitel.io/note": "a"}
    assert_good(made)


@pytest.mark.parametrize("action", ["DENY", "AUDIT"])
def test_an_action_that_could_never_be_taken_is_refused(action: str) -> None:
    with pytest.raises(ValueError, match=rf"^rules: {action} without a rule never acts"):
        authorization_policy("web", "shop", action)


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"action": "allow"}, "action"),
        ({"action": None}, "action"),
        ({"rules": None}, "rules"),
        ({"rules": {}}, "rules"),
        ({"rules": "x"}, "rules"),
        ({"selector": {}}, "selector"),
        ({"provider": "opa"}, "provider"),
        ({"action": "CUSTOM"}, "provider"),
        ({"action": "AUDIT", "dry_run": True}, "dry_run"),
        ({"dry_run": "true"}, "dry_run"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], argument: str) -> None:
    call: dict[str, Any] = {"name": "web", "namespace": "shop", "rules": [{}]}

    with pytest.raises(ValueError, match=rf"^{argument}: "):
        authorization_policy(**call | wrong)


def source(**fields: Any) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def operation(**fields: Any) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def when(**fields: Any) -> dict[str, Any]:
    return {"when": [fields]}


SOURCE = r"rules\[0\].from\[0\].source"
OPERATION = r"rules\[0\].to\[0\].operation"
WHEN = r"rules\[0\].when\[0\]"


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        (None, r"rules\[0\]"),
        ({"From": []}, r"rules\[0\]"),
        ({"from": []}, r"rules\[0\].from"),
        ({"from": {}}, r"rules\[0\].from"),
        ({"from": [{}]}, r"rules\[0\].from\[0\]"),
        ({"from": [{"source": {}, "principals": []}]}, r"rules\[0\].from\[0\]"),
        (source(), SOURCE),
        (source(user=["web"]), SOURCE),
        (source(principals="web"), rf"{SOURCE}.principals"),
        (source(principals=[]), rf"{SOURCE}.principals"),
        (source(principals=["web"]), rf"{SOURCE}.principals\[0\]"),
        (source(principals=["spiffe://cluster.local/ns/shop/sa/web"]), rf"{SOURCE}.principals\[0\]"),
        (source(principals=["cluster.local/ns/*/sa/web"]), rf"{SOURCE}.principals\[0\]"),
        (source(principals=["cluster.local/ns/shop/sa/web", ""]), rf"{SOURCE}.principals\[1\]"),
        (source(namespaces=["Shop"]), rf"{SOURCE}.namespaces\[0\]"),
        (source(serviceAccounts=["a/b/c"]), rf"{SOURCE}.serviceAccounts\[0\]"),
        (source(serviceAccounts=["a*"]), rf"{SOURCE}.serviceAccounts\[0\]"),
        (source(serviceAccounts=["/a"]), rf"{SOURCE}.serviceAccounts\[0\]"),
        (source(serviceAccounts=[f"a{number}" for number in range(17)]), rf"{SOURCE}.serviceAccounts"),
        (source(serviceAccounts=["web"], namespaces=["shop"]), SOURCE),
        (source(notServiceAccounts=["web"], notPrincipals=["*"]), SOURCE),
        (source(trustDomains=["a/b"]), rf"{SOURCE}.trustDomains\[0\]"),
        (source(trustDomains=["*/b"]), rf"{SOURCE}.trustDomains\[0\]"),
        (source(ipBlocks=["10.0.0.0/40"]), rf"{SOURCE}.ipBlocks\[0\]"),
        (source(notRemoteIpBlocks=["localhost"]), rf"{SOURCE}.notRemoteIpBlocks\[0\]"),
        (operation(), OPERATION),
        (operation(ports=[80]), rf"{OPERATION}.ports\[0\]"),
        (operation(ports=["0"]), rf"{OPERATION}.ports\[0\]"),
        (operation(ports=["65536"]), rf"{OPERATION}.ports\[0\]"),
        (operation(ports=["8*"]), rf"{OPERATION}.ports\[0\]"),
        (operation(ports=["9" * 5000]), rf"{OPERATION}.ports\[0\]"),
        (operation(methods=["get"]), rf"{OPERATION}.methods\[0\]"),
        (operation(paths=["/a/{x}"]), rf"{OPERATION}.paths\[0\]"),
        (operation(hosts=["a*b"]), rf"{OPERATION}.hosts\[0\]"),
        (when(), WHEN),
        (when(key="source.ip"), WHEN),
        (when(key="source.ip", values=["x"]), rf"{WHEN}.values\[0\]"),
        (when(key="source.ip", values=[]), rf"{WHEN}.values"),
        (when(key="source.name", values=["x"]), rf"{WHEN}.key"),
        (when(key="request.headers[]", values=["x"]), rf"{WHEN}.key"),
        (when(key="request.headers", values=["x"]), rf"{WHEN}.key"),
        (when(key=["source.ip"], values=["x"]), rf"{WHEN}.key"),
        (when(key="destination.port", notValues=["x"]), rf"{WHEN}.notValues\[0\]"),
    ],
)
def test_a_wrong_part_of_a_rule_is_named_by_its_place(rule: Any, place: str) -> None:
    with pytest.raises(ValueError, match=rf"^{place}: "):
        authorization_policy("web", "shop", rules=[rule])


TAKEN = [
    source(principals=["*"], requestPrincipals=["https://auth.example.com/*"]),
    source(serviceAccounts=["web", "shop/web"], ipBlocks=["10.0.0.0/8"]),
    source(notNamespaces=["shop*"], remoteIpBlocks=["2001:db8::1"]),
    operation(ports=["80"], notMethods=["DELETE"], hosts=["*.example.com"], notPaths=["/a/{*}"]),
    when(key="request.headers[User-Agent]", notValues=["curl*"]),
    when(key="experimental.envoy.filters.network.mysql_proxy[db.table]", values=["[update]"]),
    when(key="source.serviceAccount", values=["shop/web"]),
]


@pytest.mark.parametrize("rule", TAKEN)
def test_what_istio_takes_is_taken(rule: dict[str, Any]) -> None:
    made = authorization_policy("web", "shop", rules=[rule])

    assert made["spec"]["rules"] == [rule]
    assert_good(made)


@pytest.mark.parametrize("rule", TAKEN)
def test_what_is_taken_is_valid_by_istio_s_schema(rule: dict[str, Any]) -> None:
    assert_valid(authorization_policy("web", "shop", rules=[rule]))


@pytest.mark.parametrize("field", ["trustDomains", "notTrustDomains"])
def test_trust_domains_are_taken(field: str) -> None:
    rule = source(**{field: ["td.example", "*.example"]})

    assert authorization_policy("web", "shop", rules=[rule])["spec"]["rules"] == [rule]


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        (source(principals=["*"]), r"rules\[0\].from\[0\].source"),
        (source(requestPrincipals=["*"]), r"rules\[0\].from\[0\].source"),
        (when(key="source.namespace", values=["shop"]), r"rules\[0\].when\[0\].key"),
        (when(key="request.auth.claims[iss]", values=["a"]), r"rules\[0\].when\[0\].key"),
    ],
)
def test_an_external_authorizer_is_asked_before_anybody_is_known(rule: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=rf"^{place}: CUSTOM takes"):
        authorization_policy("web", "shop", "CUSTOM", [rule], provider="opa")


def test_a_principal_is_a_spiffe_id_without_its_scheme() -> None:
    assert service_account_principal("cluster.local", "shop", "web") == "cluster.local/ns/shop/sa/web"
    with pytest.raises(ValueError, match=r"^trust_domain: "):
        service_account_principal("Cluster", "shop", "web")


@pytest.mark.parametrize("value", ["a", "a*", "*a", "*"])
def test_patterns_have_their_star_at_an_end(value: str) -> None:
    assert pattern("hosts", value) == value


@pytest.mark.parametrize("value", ["**", "a*b", "*a*", "a**", ""])
def test_other_patterns_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^hosts: "):
        pattern("hosts", value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything within."""
    found = [path]
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


@settings(max_examples=200)
@given(st.sampled_from(places([RULE])[1:]), JUNK)
def test_anything_anywhere_in_a_rule_is_taken_rightly_or_refused_by_its_place(path: tuple[Any, ...], junk: Any) -> None:
    rules: Any = copy.deepcopy([RULE])
    around = rules
    for step in path[:-1]:
        around = around[step]
    around[path[-1]] = junk

    made = taken_or_refused(authorization_policy, {"name": "web", "namespace": "shop"}, "rules", rules)

    if made is not None:
        assert_good(made)
