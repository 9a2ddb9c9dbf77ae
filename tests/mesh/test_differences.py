"""For whom something changes."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.decision import Facts, compile_policies
from mesh.differences import DecisionChange, decision_changes
from mesh.peer_authentication import effective_mode
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from tests.mesh.written import allow, deny, from_account, mode, resource, resources, rule, strict

FRONT = f"[{{{from_account('shop/front')}}}]"


def changes(before: ResourceSet, after: ResourceSet) -> list[str]:
    return list(map(told, decision_changes(before, after).changes))


def told(one: DecisionChange) -> str:
    port = "" if one.port is None else f":{one.port}"
    return f"{one.caller.words} → {one.workload}{port}: {one.before} → {one.after}"


def test_the_same_answers_are_no_change() -> None:
    others = "[{from: [{source: {notPrincipals: ['cluster.local/ns/shop/sa/front']}}]}]"
    before = resources(strict(), allow("shop/a", FRONT))
    after = resources(strict(), allow("shop/b", "[{}]"), deny("shop/c", others))

    assert changes(before, before) == []
    assert changes(before, after) == []


def test_a_caller_that_comes_in_is_told_from_one_that_does_not_any_more() -> None:
    found = decision_changes(
        resources(strict(), allow("shop/a", FRONT)),
        resources(strict(), allow("shop/a", f"[{{{from_account('shop/back')}}}]")),
    ).changes

    assert [(one.caller.words.rpartition("/")[2], one.opens) for one in found] == [("back", True), ("front", False)]


def test_a_mode_is_an_answer_too() -> None:
    assert changes(resources(mode("shop/default", "PERMISSIVE")), resources(strict())) == [
        "without identity → shop/any other: allowed over plaintext → refused"
    ]
    before, after = (resources(mode("shop/default", its), allow("shop/a", FRONT)) for its in ("STRICT", "DISABLE"))
    disabled = changes(before, after)
    assert "cluster.local/ns/shop/sa/front → shop/any other: allowed → denied over plaintext" in disabled
    assert "without identity → shop/any other: refused → denied over plaintext" in disabled


def test_how_callers_dial_is_an_answer_too() -> None:
    service = resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}")
    governed = (strict(), service, allow("shop/web", "[{to: [{operation: {ports: ['8080']}}]}]", "{app: web}"))
    plain = rule("shop/web", "web", "{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}")

    assert changes(resources(*governed), resources(*governed, plain)) == [
        "any other identity → shop/app=web:8080: allowed → refused"
    ]


def test_what_hangs_on_requests_is_told_as_such() -> None:
    reads = FRONT.replace("}]}]", "}], to: [{operation: {methods: [GET]}}]}]")

    assert changes(resources(strict(), allow("shop/a", FRONT)), resources(strict(), allow("shop/a", reads))) == [
        "cluster.local/ns/shop/sa/front → shop/any other: allowed → denied (requests: allowed for method GET)"
    ]


def test_a_port_is_named_where_it_alone_changes() -> None:
    before, after = (
        resources(strict(), deny("shop/a", f"[{{to: [{{operation: {{ports: ['{port}']}}}}]}}]")) for port in (80, 81)
    )

    assert changes(before, after) == [
        "any other identity → shop/any other:80: denied → allowed",
        "any other identity → shop/any other:81: allowed → denied",
    ]


def test_a_policy_for_the_whole_mesh_changes_answers_everywhere() -> None:
    found = changes(resources(strict()), resources(strict(), deny("istio-system/a", "[{}]")))

    assert "any other identity → shop/any other: allowed → denied" in found
    assert "any other identity → some-namespace/any other: allowed → denied" in found


def test_there_is_an_end_to_asking() -> None:
    found = decision_changes(resources(), resources(*(allow(f"n{n}/a", FRONT) for n in range(50))), most_questions=60)

    assert not found.complete
    assert 0 < len(found.changes) <= 60


POLICIES = st.lists(
    st.builds(
        lambda action, rules, labels: (action, rules, labels),
        st.sampled_from([allow, deny]),
        st.sampled_from([
            "[{}]",
            FRONT,
            "[{from: [{source: {namespaces: [shop]}}]}]",
            "[{from: [{source: {notPrincipals: ['*']}}]}]",
            "[{to: [{operation: {ports: ['80']}}]}]",
            "[{from: [{source: {serviceAccounts: [back]}}], to: [{operation: {notPorts: ['81']}}]}]",
        ]),
        st.sampled_from(["", "{app: web}"]),
    ),
    max_size=3,
)  # fmt: skip
Made = list[tuple[Callable[[str, str, str], str], str, str]]
MODES = st.sampled_from(["STRICT", "PERMISSIVE", "DISABLE"])
PRINCIPALS = [
    *(f"cluster.local/ns/{account}" for account in ("shop/sa/front", "shop/sa/back", "shop/sa/x", "else/sa/y")),
    None,
]


@settings(max_examples=60, deadline=None)
@given(POLICIES, POLICIES, MODES, MODES)
def test_where_no_change_is_told_nobody_finds_one(first: Made, second: Made, old: str, new: str) -> None:
    before, after = _set(first, old), _set(second, new)

    differs = any(
        outcome(before, workload, principal, port) != outcome(after, workload, principal, port)
        for workload in (Workload("shop", labels, "", "some") for labels in ({}, {"app": "web"}, {"app": "db"}))
        for principal in PRINCIPALS
        for port in (80, 81, 9999)
    )
    assert bool(decision_changes(before, after).changes) == differs


def _set(made: Made, its_mode: str) -> ResourceSet:
    texts = [make(f"shop/p{number}", rules, labels) for number, (make, rules, labels) in enumerate(made)]
    return resources(mode("shop/default", its_mode), *texts)


def outcome(resources: ResourceSet, workload: Workload, principal: str | None, port: int) -> object:
    """What happens, found in another way."""
    server = effective_mode(resources, workload, port).mode.value
    if principal is None and server == "STRICT":
        return "refused"
    known = None if server == "DISABLE" else principal
    decision = compile_policies(resources.authorization_policies, workload).decide(Facts(port, known))
    return server == "DISABLE", decision.allowed
