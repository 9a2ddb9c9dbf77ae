"""What the rules of a workload say: the mode of each port at each level, decisions, limits, and a closed gate."""

from __future__ import annotations

import pytest

from mesh.modes import MTLSMode
from mesh.selectors import Workload
from proxy.policy.rules import Rules
from tests.proxy.policy.conftest import OTHER, WEB, allow, facts, mode_of
from tests.support.policies import resources

API = Workload("default", {"app": "api"}, "api")
MESH = mode_of("STRICT", namespace="istio-system")
NAMESPACE = mode_of("DISABLE")
WORKLOAD = mode_of("PERMISSIVE", name="api", selector={"app": "api"})
PORT = mode_of("PERMISSIVE", name="api", selector={"app": "api"}, ports={8080: "STRICT", 9090: "DISABLE"})


def rules(*documents: str, default: MTLSMode = MTLSMode.PERMISSIVE, **options) -> Rules:
    found = resources("---\n".join(documents))
    return Rules.of(found, API, default_mode=default, trust_domain="cluster.local", **options)


@pytest.mark.parametrize(
    ("documents", "elsewhere"),
    [
        ((), MTLSMode.PERMISSIVE),
        ((MESH,), MTLSMode.STRICT),
        ((MESH, NAMESPACE), MTLSMode.DISABLE),
        ((MESH, NAMESPACE, WORKLOAD), MTLSMode.PERMISSIVE),
        ((MESH, NAMESPACE, PORT), MTLSMode.PERMISSIVE),
    ],
)
def test_the_narrower_level_decides_the_mode(documents, elsewhere):
    assert rules(*documents).mode(1234) is elsewhere


def test_a_port_with_a_mode_of_its_own_has_it_and_all_others_do_not():
    found = rules(MESH, PORT)
    assert [found.mode(port) for port in (8080, 9090, 9091)] == [
        MTLSMode.STRICT, MTLSMode.DISABLE, MTLSMode.PERMISSIVE,
    ]  # fmt: skip


def test_policies_of_other_namespaces_and_workloads_do_not_concern_us():
    found = rules(mode_of("DISABLE", namespace="bank"), mode_of("DISABLE", selector={"app": "other"}))
    assert found.mode(80) is MTLSMode.PERMISSIVE
    assert rules(allow(OTHER, namespace="bank")).decide(facts(WEB)).allowed


def test_who_may_connect_is_what_the_policies_say():
    found = rules(allow(WEB))
    assert found.decide(facts(WEB)).policy == "default/allow"
    assert not found.decide(facts(OTHER)).allowed
    assert not found.decide(facts(None)).allowed


def test_an_alias_of_our_trust_domain_is_our_trust_domain():
    policy = allow("old.example/ns/default/sa/web")
    assert not rules(policy).decide(facts(WEB)).allowed
    assert rules(policy, trust_domain_aliases=("old.example",)).decide(facts(WEB)).allowed


def test_closed_rules_let_nobody_in_and_say_why():
    closed = Rules.closed("a.yaml:3 is broken")
    assert closed.mode(80) is MTLSMode.STRICT
    decision = closed.decide(facts(WEB))
    assert not decision.allowed
    assert "a.yaml:3 is broken" in decision.reason
