"""Who is allowed, by which policy and why: which policies apply, the order of actions, dry run, audit, sentences."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.authorization import Action
from mesh.decision import Compiled, Decision, Facts, closed, compile_policies, decide
from mesh.selectors import Workload
from tests.support.policies import CURL, HTTPBIN, OTHER, document, policies, policy, request, tcp

VIEWER = {"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}
DENY_GET = {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}


def allowed(spec: Any, facts: Facts) -> bool:
    return decide([policy(spec)], facts).allowed


# Which policies apply


@pytest.mark.parametrize(
    ("namespace", "selector", "applies"),
    [
        ("foo", None, True),
        ("foo", {"app": "httpbin"}, True),
        ("foo", {"app": "httpbin", "version": "v1"}, True),
        ("foo", {"app": "httpbin", "version": "v2"}, False),
        ("foo", {"tier": "x"}, False),
        ("bar", None, False),
        ("bar", {"app": "httpbin"}, False),
        ("istio-system", None, True),
        ("istio-system", {"version": "v1"}, True),
        ("istio-system", {"version": "v2"}, False),
    ],
)
def test_a_policy_applies_to_its_namespace_and_labels_and_from_the_root_everywhere(
    namespace: str, selector: dict[str, str] | None, applies: bool
) -> None:
    spec: dict[str, Any] = {"selector": {"matchLabels": selector}} if selector else {}
    compiled = compile_policies([policy(spec, namespace=namespace)], HTTPBIN)

    assert len(compiled.policies) == applies
    assert compiled.decide(tcp()).allowed is not applies


def test_the_root_namespace_may_be_another() -> None:
    compiled = compile_policies([policy({}, namespace="qbitel-system")], HTTPBIN, root_namespace="qbitel-system")

    assert not compiled.decide(tcp()).allowed


def test_a_policy_with_target_refs_is_left_to_waypoints() -> None:
    (one,) = policies(
        document("AuthorizationPolicy", {"targetRefs": [{"kind": "Service", "group": "", "name": "httpbin"}]})
    )

    assert compile_policies([one], HTTPBIN).decide(tcp()).allowed


# Order, names, sentences


def test_deny_comes_before_allow_and_custom_before_both() -> None:
    allow = policy({"rules": [{}]}, name="a-allow")
    deny = policy({"action": "DENY", "rules": [{}]}, name="b-deny")
    custom = policy({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]}, name="c-custom")

    assert decide([allow], tcp()).policy == "foo/a-allow"
    assert decide([allow, deny], tcp()).policy == "foo/b-deny"
    assert decide([allow, deny, custom], tcp()).policy == "foo/c-custom"
    assert [decide([allow, deny, custom][:count], tcp()).action for count in (1, 2, 3)] == [
        Action.ALLOW,
        Action.DENY,
        Action.CUSTOM,
    ]


def test_custom_denies_what_it_matches_and_nothing_else_and_names_its_authorizer() -> None:
    spec = {"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{"to": [{"operation": {"ports": ["9000"]}}]}]}

    assert allowed(spec, tcp(9001))
    assert decide([policy(spec)], tcp(9000)).reason == (
        "denied: rules[0] of the CUSTOM policy foo/web asks the authorizer 'opa', which cannot be asked here"
    )


def test_the_oldest_policy_and_its_first_rule_that_match_are_named() -> None:
    rules = [{"to": [{"operation": {"ports": [port]}}]} for port in ("1", "9000", "9000")]
    old = policy({"rules": rules}, name="z", creationTimestamp="2025-01-01T00:00:00Z")
    young = policy({"rules": rules}, name="a", creationTimestamp="2026-01-01T00:00:00Z")
    unborn = policy({"rules": rules}, name="0")

    for order in ([old, young, unborn], [unborn, young, old]):
        decision = decide(order, tcp(9000))
        assert (decision.policy, decision.rule) == ("foo/z", 1)
        assert decision.reason == "allowed by rules[1] of the ALLOW policy foo/z"


@pytest.mark.parametrize(
    ("specs", "facts", "reason"),
    [
        ([{}], tcp(), "denied: no ALLOW policy matches (foo/p0)"),
        ([{}], tcp(principal=None), "denied: no ALLOW policy matches (foo/p0); the peer has shown no identity"),
        ([{}] * 5, tcp(), "denied: no ALLOW policy matches (foo/p0, foo/p1, foo/p2 and 2 more)"),
        (
            [VIEWER],
            tcp(),
            "denied: no ALLOW policy matches (foo/p0); rules with HTTP conditions match no connection",
        ),
        ([VIEWER], request("POST"), "denied: no ALLOW policy matches (foo/p0)"),
        ([DENY_GET], tcp(), "denied by rules[0] of the DENY policy foo/p0"),
        ([DENY_GET], request("POST"), "allowed: no DENY policy matches, and there is no ALLOW policy"),
        ([{"action": "AUDIT"}], tcp(), "allowed: no policy applies"),
    ],
)
def test_a_decision_says_in_one_sentence_why(specs: list[Any], facts: Facts, reason: str) -> None:
    given_policies = [policy(spec, name=f"p{number}") for number, spec in enumerate(specs)]

    assert decide(given_policies, facts).reason == reason


# Dry run and audit

DRY = {"annotations": {"istio.io/dry-run": "true"}}


def test_a_policy_in_dry_run_decides_nothing_and_what_it_would_do_is_told() -> None:
    deny = policy({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["9000"]}}]}]}, name="deny", **DRY)

    decision = decide([deny], tcp(9000))

    assert decision.allowed
    assert decision.policy is None
    assert decision.dry_run == Decision(
        False, Action.DENY, "foo/deny", 0, "denied by rules[0] of the DENY policy foo/deny"
    )
    other = decide([deny], tcp(9001)).dry_run
    assert other is not None
    assert other.allowed


def test_an_allow_policy_in_dry_run_does_not_close_the_workload_and_does_not_open_it() -> None:
    dry = policy({"rules": [{}]}, name="dry", **DRY)
    nothing = policy({}, name="nothing")

    assert decide([policy({}, name="dry", **DRY)], tcp()).allowed
    alone = decide([nothing, dry], tcp())
    assert not alone.allowed
    assert alone.dry_run is not None
    assert alone.dry_run.allowed


def test_without_dry_run_nothing_is_told_of_it() -> None:
    assert decide([policy({}, annotations={"istio.io/dry-run": "false"})], tcp()).dry_run is None


def test_audit_policies_decide_nothing_and_are_named_once_each() -> None:
    rules = [{"from": [{"source": {"namespaces": ["foo"]}}]}, {"to": [{"operation": {"ports": ["9000"]}}]}]
    audits = [policy({"action": "AUDIT", "rules": rules}, name=name) for name in ("a", "b")]
    nothing = policy({}, name="nothing")

    assert decide([*audits, nothing], tcp(9000)).audited == ("foo/a", "foo/b")
    assert not decide([*audits, nothing], tcp(9000)).allowed
    assert decide(audits, tcp(9000)).allowed
    assert decide(audits, tcp(9001, OTHER)).audited == ()


# What is not understood


@pytest.mark.parametrize(("action", "is_allowed"), [("ALLOW", False), ("DENY", False), ("AUDIT", True)])
def test_a_condition_on_envoy_s_metadata_never_allows_and_does_not_keep_deny_from_denying(
    action: str, is_allowed: bool
) -> None:
    condition = {"key": "experimental.envoy.filters.network.mysql_proxy[db.table]", "values": ["[update]"]}
    spec = {"action": action, "rules": [{"when": [condition]}]}

    assert allowed(spec, tcp()) is is_allowed
    assert allowed(spec, request()) is is_allowed


def test_closed_denies_everything_and_says_why() -> None:
    compiled = closed("policies.yaml:3: spec.action: 'ALOW' is none of ALLOW, DENY")

    for facts in (tcp(), request(), tcp(principal=None)):
        decision = compiled.decide(facts)
        assert not decision.allowed
        assert decision.reason == "denied: policies.yaml:3: spec.action: 'ALOW' is none of ALLOW, DENY"


# Remembering


def test_what_is_remembered_depends_on_everything_that_the_rules_ask_for() -> None:
    rules = [
        {"from": [{"source": {"ipBlocks": ["10.0.0.1"]}}]},
        {"from": [{"source": {"remoteIpBlocks": ["10.0.0.2"]}}]},
        {"when": [{"key": "destination.ip", "values": ["10.0.0.3"]}]},
        {"when": [{"key": "connection.sni", "values": ["a"]}]},
        {"to": [{"operation": {"ports": ["1"]}}]},
        {"from": [{"source": {"principals": [CURL]}}]},
    ]
    compiled = compile_policies([policy({"rules": rules})], HTTPBIN)
    base = {"destination_port": 2, "principal": OTHER, "source_ip": "10.9.9.9", "destination_ip": "10.9.9.9"}
    changes: list[dict[str, Any]] = [
        {"source_ip": "10.0.0.1"},
        {"remote_ip": "10.0.0.2"},
        {"destination_ip": "10.0.0.3"},
        {"sni": "a"},
        {"destination_port": 1},
        {"principal": CURL},
    ]

    for _ in range(2):
        assert not compiled.decide(Facts(**base)).allowed  # type: ignore[arg-type]
        assert [compiled.decide(Facts(**{**base, **change})).rule for change in changes] == [0, 1, 2, 3, 4, 5]


def test_how_much_is_remembered_is_bounded() -> None:
    compiled = compile_policies([policy({"rules": [{"from": [{"source": {"principals": [CURL]}}]}]})], HTTPBIN)

    for number in range(5000):
        assert not compiled.decide(tcp(principal=f"cluster.local/ns/foo/sa/{number}")).allowed
    assert compiled.decide(tcp()).allowed
    assert len(compiled._remembered) <= 1024


def test_compiled_for_one_workload_says_nothing_of_others() -> None:
    mine, other = Workload("foo", {"app": "a"}, "a"), Workload("foo", {"app": "b"}, "b")
    one = policy({"selector": {"matchLabels": {"app": "a"}}})

    assert isinstance(compile_policies([one], mine), Compiled)
    assert not compile_policies([one], mine).decide(tcp()).allowed
    assert compile_policies([one], other).decide(tcp()).allowed


def test_a_thousand_policies_are_told_apart() -> None:
    many = [
        policy(
            {"rules": [{"from": [{"source": {"principals": [f"cluster.local/ns/foo/sa/{number}"]}}]}]},
            name=f"p{number:04}",
        )
        for number in range(1000)
    ]
    compiled = compile_policies(many, HTTPBIN)

    for number in (0, 1, 500, 999):
        assert compiled.decide(tcp(principal=f"cluster.local/ns/foo/sa/{number}")).policy == f"foo/p{number:04}"
    assert not compiled.decide(tcp(principal="cluster.local/ns/foo/sa/1000")).allowed
