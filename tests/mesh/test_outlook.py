"""What awaits a peer: what is sure before its request is known, and what hangs on the request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.authorization import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from mesh.decision import Facts, HttpFacts, compile_policies
from mesh.metadata import Metadata
from mesh.outlook import Forecast, Outlook
from mesh.selectors import Selector, Workload

WEB = Workload("shop", {"app": "web"}, "web", "web")
FRONT = "cluster.local/ns/shop/sa/front"
BACK = "cluster.local/ns/shop/sa/back"


def policy(action: str, *rules: Rule, name: str = "web", dry_run: bool = False) -> AuthorizationPolicy:
    metadata = Metadata("AuthorizationPolicy", "shop", name)
    return AuthorizationPolicy(metadata, Action[action], rules, Selector({}), dry_run)


def rule(*, source: Source | None = None, operation: Operation | None = None, when: Condition | None = None) -> Rule:
    return Rule((source,) if source else (), (operation,) if operation else (), (when,) if when else ())


def looked_out(*policies: AuthorizationPolicy, principal: str | None = FRONT, port: int = 80) -> Outlook:
    return Forecast(compile_policies(policies, WEB)).of(principal, port)


READS = Operation(methods=("GET", "HEAD"))


def test_what_asks_for_nothing_open_is_sure() -> None:
    front = policy("ALLOW", rule(source=Source(principals=(FRONT,)), operation=Operation(ports=("80",))))

    assert looked_out().answer == "allowed"
    assert str(looked_out(front)) == "allowed by rules[0] of the ALLOW policy shop/web"
    assert looked_out(front, port=81).answer == "denied"
    assert str(looked_out(front, principal=BACK)) == "denied: no ALLOW policy matches (shop/web)"
    assert looked_out(front, principal=None).answer == "denied"
    assert looked_out(policy("DENY", Rule())).decision.policy == "shop/web"


def test_what_hangs_on_the_request_is_told_in_words() -> None:
    seen = looked_out(policy("ALLOW", rule(source=Source(principals=(FRONT,)), operation=READS)))

    assert seen.answer == "depends"
    assert str(seen) == (
        "allowed for method GET or HEAD (rules[0] of shop/web); otherwise denied: no ALLOW policy matches (shop/web)"
    )
    assert looked_out(policy("ALLOW", rule(source=Source(principals=(BACK,)), operation=READS))).answer == "denied"


def test_a_rule_that_is_sure_makes_one_that_is_open_pointless() -> None:
    open_and_sure = policy("ALLOW", rule(operation=READS), rule(source=Source(principals=(FRONT,))))

    seen = looked_out(open_and_sure)
    assert (seen.answer, seen.decision.rule, seen.allowed_for) == ("allowed", 1, ())
    denied = looked_out(open_and_sure, policy("DENY", Rule(), name="no"))
    assert (denied.answer, denied.decision.policy, denied.allowed_for) == ("denied", "shop/no", ())


def test_a_denial_that_hangs_on_the_request_leaves_the_rest_allowed() -> None:
    admin = policy("DENY", rule(operation=Operation(paths=("/admin*",), not_methods=("GET",))), name="admin")

    assert str(looked_out(admin)) == (
        "denied for method not GET and path /admin* (rules[0] of shop/admin); "
        "otherwise allowed: no DENY policy matches, and there is no ALLOW policy"
    )
    both = looked_out(admin, policy("ALLOW", rule(operation=READS)))
    assert str(both).startswith("allowed for method GET or HEAD (rules[0] of shop/web); denied for method not GET")


def test_each_alternative_of_a_rule_is_looked_at_by_itself() -> None:
    mixed = policy(
        "ALLOW",
        Rule((Source(principals=(BACK,)), Source(principals=(FRONT,), request_principals=("*",))), (), ()),
    )

    assert looked_out(mixed, principal=BACK).answer == "allowed"
    assert str(looked_out(mixed)).startswith("allowed for token of any (rules[0] of shop/web)")


PATHS = "path /0 or /1 or /2 or /3 or /4 or 2 more"


@pytest.mark.parametrize(
    ("open_part", "words"),
    [
        (rule(source=Source(request_principals=("https://a/b",))), "token of https://a/b"),
        (rule(source=Source(ip_blocks=("10.0.0.0/8",))), "address in 10.0.0.0/8"),
        (rule(source=Source(not_remote_ip_blocks=("10.0.0.1",))), "client address in not 10.0.0.1"),
        (rule(operation=Operation(hosts=("a.example",), paths=("/x",))), "path /x and host a.example"),
        (
            rule(operation=Operation(paths=tuple(f"/{n}" for n in range(7)))),
            "path /0 or /1 or /2 or /3 or /4 or 2 more",
        ),
        (
            rule(when=Condition("request.headers[x]", ("1",), ("2",))),
            "request.headers[x] 1 and request.headers[x] not 2",
        ),
        (rule(when=Condition("connection.sni", ("a",))), "connection.sni a"),
    ],
)
def test_whatever_is_not_known_beforehand_counts_as_open(open_part: Rule, words: str) -> None:
    assert looked_out(policy("ALLOW", open_part)).allowed_for[0].where == words


def test_policies_that_do_not_decide_are_left_out() -> None:
    assert looked_out(policy("DENY", Rule(), dry_run=True), policy("AUDIT", Rule(), name="audit")).answer == "allowed"


def test_a_rule_without_end_is_not_looked_at_without_end() -> None:
    many = Rule(
        tuple(Source(request_principals=(f"a/{number}",)) for number in range(200)),
        tuple(Operation(methods=(f"M{number}",)) for number in range(200)),
        (),
    )

    seen = looked_out(policy("ALLOW", many))
    assert len(seen.allowed_for) == 1025
    assert seen.allowed_for[-1].where == "what further alternatives say"
    assert "and 1" not in str(seen)
    assert "1020 more" in str(seen)
    assert len(looked_out(policy("ALLOW", many, many, many)).allowed_for) == 1029


PRINCIPALS = st.sampled_from([(), (FRONT,), (BACK,), ("*",)])
SOURCES = st.builds(
    Source, principals=PRINCIPALS, not_principals=PRINCIPALS, request_principals=st.sampled_from([(), ("*",)])
)
OPERATIONS = st.builds(
    Operation,
    ports=st.sampled_from([(), ("80",), ("81",)]),
    methods=st.sampled_from([(), ("GET",)]),
    not_paths=st.sampled_from([(), ("/a",)]),
)
CONDITIONS = st.sampled_from(
    [
        Condition("request.headers[x]", ("1",)),
        Condition("source.principal", (FRONT,)),
        Condition("destination.port", (), ("80",)),
    ]
)
RULES = st.builds(
    lambda sources, operations, when: Rule(tuple(sources), tuple(operations), tuple(when)),
    st.lists(SOURCES, max_size=2),
    st.lists(OPERATIONS, max_size=2),
    st.lists(CONDITIONS, max_size=1),
)
POLICIES = st.lists(
    st.tuples(st.sampled_from(["ALLOW", "DENY", "AUDIT"]), st.lists(RULES, max_size=3), st.booleans()), max_size=4
)
REQUESTS = [
    HttpFacts(method, path, headers=headers, claims=claims)
    for method in ("GET", "PUT")
    for path in ("/a", "/b")
    for headers in ({}, {"x": "1"})
    for claims in (None, {"iss": "i", "sub": "s"})
]


@given(POLICIES, st.sampled_from([FRONT, BACK, None]))
def test_what_is_called_sure_is_so_for_every_request_and_what_is_not_for_some_only(
    made: list[tuple[str, list[Rule], bool]], principal: str | None
) -> None:
    policies = [
        policy(action, *rules, name=f"p{number}", dry_run=dry_run)
        for number, (action, rules, dry_run) in enumerate(made)
    ]
    compiled = compile_policies(policies, WEB)

    seen = Forecast(compiled).of(principal, 80)
    decisions = [compiled.decide(Facts(80, principal, http=request)) for request in REQUESTS]
    if seen.answer == "allowed":
        assert all(one.allowed for one in decisions)
    elif seen.answer == "denied":
        assert not any(one.allowed for one in decisions)
    else:
        assert len({(one.policy, one.rule) for one in decisions}) > 1 or decisions[0].allowed != seen.decision.allowed
