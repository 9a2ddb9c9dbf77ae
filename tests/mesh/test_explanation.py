"""What each policy says of a connection, beside the one that decides."""

from __future__ import annotations

from mesh.decision import Facts, HttpFacts, compile_policies
from mesh.explanation import Statement, statements
from mesh.selectors import Workload
from tests.mesh.written import allow, deny, from_account, resource, resources

WEB = Workload("shop", {"app": "web"}, "web", "web")
FRONT = "cluster.local/ns/shop/sa/front"


def said(facts: Facts, *texts: str) -> list[Statement]:
    compiled = compile_policies(resources(*texts).authorization_policies, WEB)
    return list(statements(compiled, facts))


def test_each_policy_is_heard_in_the_order_in_which_it_is_asked() -> None:
    found = said(
        Facts(80, FRONT),
        allow("shop/a", f"[{{{from_account('shop/back')}}}, {{{from_account('shop/front')}}}]"),
        deny("shop/b", "[{to: [{operation: {ports: ['81']}}]}]"),
        resource("AuthorizationPolicy", "shop/c", "{action: AUDIT, rules: [{}]}"),
        resource("AuthorizationPolicy", "shop/d", "{}"),
        allow("other/e", "[{}]"),
    )

    assert [(one.policy.metadata.key, one.rule, one.decides) for one in found] == [
        ("shop/b", None, False),
        ("shop/a", 1, True),
        ("shop/d", None, False),
        ("shop/c", 0, False),
    ]
    assert [one.words for one in found] == [
        "no rule matches",
        "rules[1] matches",
        "has no rules: it matches nothing",
        "rules[0] matches",
    ]


def test_a_policy_in_dry_run_is_heard_and_does_not_decide() -> None:
    trial = resource(
        "AuthorizationPolicy", "shop/a", "{action: DENY, rules: [{}]}", annotations="{istio.io/dry-run: 'true'}"
    )

    (found,) = said(Facts(80, FRONT), trial)
    assert (found.decides, found.words) == (False, "rules[0] matches, in dry run: nothing follows")


def test_a_request_is_judged_as_a_request() -> None:
    policy = allow("shop/a", "[{to: [{operation: {methods: [GET]}}]}]")

    assert [one.rule for one in said(Facts(80, FRONT), policy)] == [None]
    assert [one.rule for one in said(Facts(80, FRONT, http=HttpFacts("GET", "/")), policy)] == [0]


def test_an_audit_of_the_same_name_as_what_decides_is_told_apart() -> None:
    found = said(Facts(80, FRONT), resource("AuthorizationPolicy", "shop/a", "{action: AUDIT, rules: [{}]}"))

    assert [one.decides for one in found] == [False]
