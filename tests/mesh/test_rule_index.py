"""Rules found by what they cannot match without: that none is missed, and that few are looked at."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.authorization import Action, Condition, Operation, Rule, Source
from mesh.conditions import Mesh
from mesh.facts import Facts, HttpFacts, View
from mesh.rule_index import NeverMatches, ReadyRule, RuleIndex, make_ready

MESH = Mesh("shop", "cluster.local", ())


def ready(rule: Rule, meaning: int = 0, *, action: Action = Action.ALLOW, http: bool = False) -> ReadyRule[int]:
    return make_ready(rule, action, MESH, http=http, meaning=meaning)


def dimensions(rule: Rule, *, http: bool = False) -> list[str] | None:
    keys = ready(rule, http=http).keys
    return None if keys is None else [key.dimension for key in keys]


PRINCIPAL = Source(principals=("a/ns/b/sa/c",))
NAMESPACE = Source(namespaces=("b",))
BLOCK = Source(ip_blocks=("10.0.0.0/8",))
NOT_B = Source(not_namespaces=("b",))
PORT = Operation(ports=("80",))
PATH = Operation(paths=("/a",))


@pytest.mark.parametrize(
    ("rule", "filed"),
    [
        (Rule(), None),
        (Rule((PRINCIPAL,)), ["principal"]),
        (Rule((PRINCIPAL,), (PORT,)), ["principal"]),
        (Rule((PRINCIPAL, NAMESPACE, BLOCK)), ["principal", "namespace", "address"]),
        (Rule((PRINCIPAL, NOT_B)), None),
        (Rule((PRINCIPAL, NOT_B), (PORT,)), ["port"]),
        (Rule((NOT_B,), (PORT, Operation(not_ports=("1",)))), None),
        (Rule((Source(principals=("*",)),)), None),
        (Rule((Source(namespaces=("b",), ip_blocks=("10.0.0.1",)),)), ["namespace"]),
        (Rule(conditions=(Condition("source.principal", ("a/ns/b/sa/c",)),)), ["principal"]),
        (Rule((NOT_B,), conditions=(Condition("source.namespace", ("c",)),)), ["namespace"]),
        (Rule(conditions=(Condition("destination.port", ("80",)),)), ["port"]),
        (Rule(conditions=(Condition("destination.port", (), ("80",)),)), None),
        (Rule((Source(namespaces=("a*b",)),)), ["namespace"]),
    ],
)
def test_what_a_rule_is_filed_under(rule: Rule, filed: list[str] | None) -> None:
    assert dimensions(rule) == filed


def test_a_rule_about_requests_is_filed_under_its_path() -> None:
    assert dimensions(Rule((), (PATH,)), http=True) == ["path"]


def test_an_allow_rule_that_a_connection_cannot_meet_is_none() -> None:
    with pytest.raises(NeverMatches):
        ready(Rule((), (PORT, PATH)))
    with pytest.raises(NeverMatches):
        ready(Rule(conditions=(Condition("experimental.envoy.filters.x[y]", ("z",)),)), http=True)


@pytest.mark.parametrize("action", [Action.DENY, Action.AUDIT, Action.CUSTOM])
def test_of_other_rules_what_a_connection_does_not_have_is_left_out(action: Action) -> None:
    rule = ready(Rule((), (Operation(paths=("/a",), ports=("80",)),)), action=action)

    assert rule.matches(View(Facts(80)))
    assert not rule.matches(View(Facts(81)))


def test_an_address_that_is_not_known_leaves_a_denying_rule_in() -> None:
    index = RuleIndex([ready(Rule((BLOCK,)), 7, action=Action.DENY)])

    assert index.first(View(Facts(80))) == 7
    assert index.first(View(Facts(80, source_ip="11.0.0.1"))) is None
    assert RuleIndex([ready(Rule((BLOCK,)), 7)]).first(View(Facts(80))) is None


def test_the_first_in_order_is_found_whether_it_was_filed_or_not() -> None:
    filed, always = Rule((PRINCIPAL,)), Rule((NOT_B,))
    view = View(Facts(80, "a/ns/b/sa/c"))
    other = View(Facts(80, "a/ns/x/sa/c"))
    both = RuleIndex([ready(always, 0), ready(filed, 1), ready(Rule(), 2), ready(filed, 3)])

    assert both.first(view) == 1
    assert list(both.all(view)) == [1, 2, 3]
    assert both.first(other) == 0
    assert list(both.all(other)) == [0, 2]
    assert len(both) == 4


def test_thousands_of_rules_keep_their_order() -> None:
    """They are kept in blocks: in one, a set of rules would take as many bits as there are rules."""
    rules = [ready(Rule((Source(principals=(f"a/ns/b/sa/{number % 5000}",)),)), number) for number in range(9000)]
    index = RuleIndex(rules)

    assert len(index) == 9000
    assert list(index.all(View(Facts(80, "a/ns/b/sa/3999")))) == [3999, 8999]
    assert index.first(View(Facts(80, "a/ns/b/sa/4999"))) == 4999
    assert index.first(View(Facts(80, "a/ns/b/sa/5000"))) is None
    assert RuleIndex([]).first(View(Facts(80))) is None


def test_of_many_rules_few_are_looked_at() -> None:
    class Counted(View):
        looked = 0

        @property
        def source_ip(self) -> tuple[int, int] | None:
            type(self).looked += 1
            return super().source_ip

    def rule(number: int) -> Rule:
        return Rule((Source(principals=(f"a/ns/b/sa/{number}",), ip_blocks=("10.0.0.0/8",)),))

    index = RuleIndex([ready(rule(number), number) for number in range(1000)])

    assert index.first(Counted(Facts(80, "a/ns/b/sa/999", "10.0.0.1"))) == 999
    assert index.first(Counted(Facts(80, "a/ns/b/sa/1000", "10.0.0.1"))) is None
    assert Counted.looked == 1


def test_whom_a_rule_excludes_it_is_not_looked_at_for() -> None:
    looked = 0

    class Counted(View):
        def header(self, name: str) -> str | None:
            nonlocal looked
            looked += 1
            return super().header(name)

    # Were the rule looked at, the header would be asked for first.
    conditions = (Condition("request.headers[a]", ("b",)), Condition("source.principal", (), ("a/ns/b/*",)))
    rule = Rule(conditions=conditions)
    index = RuleIndex([ready(rule, number, http=True) for number in range(1000)])
    http = HttpFacts("GET", "/", headers={"a": "b"})

    assert index.first(Counted(Facts(80, "a/ns/b/sa/c", http=http))) is None
    assert looked == 0
    assert index.first(Counted(Facts(80, "a/ns/c/sa/c", http=http))) == 0
    assert looked == 1


@pytest.mark.parametrize(
    ("rule", "bars"),
    [
        (Rule((NOT_B,)), ["namespace"]),
        (Rule((NOT_B,), (Operation(not_ports=("1",)),)), ["namespace", "port"]),
        (Rule((NOT_B, PRINCIPAL)), []),  # who is excluded by one source may be let in by the other
        (Rule((Source(not_principals=("*",)),)), []),
        (Rule((Source(not_namespaces=("a*b",)),)), []),  # the index knows how these begin and end, which is not all
        (Rule((Source(not_ip_blocks=("10.0.0.1",)),)), ["address"]),
        (Rule(conditions=(Condition("source.namespace", (), ("b",)),)), ["namespace"]),
    ],
)
def test_what_bars_a_rule(rule: Rule, bars: list[str]) -> None:
    assert [bar.dimension for bar in ready(rule).bars] == bars


_texts = st.text(alphabet="ab", min_size=1, max_size=3)
_patterns = _texts | _texts.map("*{}".format) | _texts.map("{}*".format)
_lists = st.lists(_patterns, max_size=2).map(tuple)
_blocks = st.lists(st.sampled_from(["10.0.0.0/8", "10.0.0.1", "::1"]), max_size=2).map(tuple)
_sources = st.builds(
    Source,
    principals=_lists,
    not_principals=_lists,
    namespaces=_lists,
    not_namespaces=_lists,
    not_trust_domains=_lists,
    ip_blocks=_blocks,
    not_ip_blocks=_blocks,
    not_remote_ip_blocks=_blocks,
)
_operations = st.builds(
    Operation,
    ports=st.lists(st.sampled_from(["1", "2"]), max_size=2).map(tuple),
    not_ports=st.lists(st.sampled_from(["1", "2"]), max_size=2).map(tuple),
    paths=_lists,
    not_paths=_lists,
    not_hosts=_lists,
)
_rules = st.builds(
    Rule, st.lists(_sources, max_size=2).map(tuple), st.lists(_operations, max_size=2).map(tuple), st.just(())
)
_views = st.builds(
    Facts,
    st.sampled_from([1, 2, 3]),
    st.none() | _texts | _texts.map("td/ns/{}/sa/x".format),
    st.sampled_from([None, "10.0.0.1", "10.0.0.2", "::1"]),
    http=st.builds(HttpFacts, st.just("GET"), _texts, _texts),
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(_rules, max_size=6), st.lists(_views, min_size=1, max_size=5), st.sampled_from([Action.ALLOW, Action.DENY])
)
def test_the_index_finds_each_rule_that_matches_and_in_order(
    rules: list[Rule], views: list[Facts], action: Action
) -> None:
    made = [ready(rule, number, action=action, http=True) for number, rule in enumerate(rules)]
    index = RuleIndex(made)

    for facts in views:
        expected = [rule.meaning for rule in made if rule.matches(View(facts))]
        assert list(index.all(View(facts))) == expected
        assert index.first(View(facts)) == (expected[0] if expected else None)
