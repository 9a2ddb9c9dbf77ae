"""Decisions beside a plain reading of the same policies, and what must hold for any policies and any facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.authorization import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from mesh.decision import Decision, Facts, HttpFacts, compile_policies, decide
from mesh.metadata import Metadata
from mesh.selectors import Selector
from tests.support.naive_authorization import matches, verdict
from tests.support.policies import CURL, HTTPBIN, OTHER

_PRINCIPALS = [
    *(CURL, OTHER, "cluster.local/ns/foo/sa/web", "other.td/ns/foo/sa/curl", "cluster.local/workload/x"),
    # Forms that others may issue, and that a search for /ns/ and /sa/ reads as more than they say.
    *("other.td/workload/ns/foo/sa/web", "other.td/ns/bar/ns/foo/sa/curl", "other.td/x/ns/foo/y/z"),
]
_PRINCIPAL_VALUES = [
    *_PRINCIPALS,
    "*",
    "*/sa/curl",
    "cluster.local/ns/foo/*",
    "*/ns/foo/sa/curl",
    "old.td/ns/foo/sa/curl",
]
_ADDRESSES = ["10.0.0.1", "10.0.1.1", "2001:db8::1"]
_BLOCKS = ["10.0.0.1", "10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "10.0.1.9/31"]
_PATH_VALUES = ["/a", "/a*", "*b", "*", "/{*}/b", "/a/{**}", "/{*}", "/a/{*}/c"]
_TEXT_VALUES = ["a", "a*", "*b", "*", "ab"]
_VALUES: dict[str, list[str]] = {
    "source.principal": _PRINCIPAL_VALUES,
    "source.namespace": ["foo", "bar", "f*", "*o", "*", "f*o", "*o*", "b*a*r"],
    "source.serviceAccount": ["curl", "bar/curl", "foo/web"],
    "source.trustDomain": ["cluster.local", "other.td", "*.td", "*"],
    "source.ip": _BLOCKS,
    "remote.ip": _BLOCKS,
    "destination.ip": _BLOCKS,
    "destination.port": ["80", "443", "0080"],
    "connection.sni": [*_TEXT_VALUES, "A*"],
    "request.auth.principal": ["i/s", "i/*", "*/s", "*", "i", "i*", "*s", "i/x/s"],
    "request.auth.audiences": _TEXT_VALUES,
    "request.auth.presenter": _TEXT_VALUES,
    "request.auth.claims[a][b]": _TEXT_VALUES,
    "request.headers[X-A]": _TEXT_VALUES,
    "experimental.envoy.filters.x[y]": ["z"],
}
_METHODS = ["GET", "POST", "G*", "*T", "*"]
_HOSTS = ["a.example", "*.EXAMPLE", "A*", "*"]


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=3).map(tuple)


sources = (
    st.builds(
        Source,
        principals=some(_PRINCIPAL_VALUES),
        not_principals=some(_PRINCIPAL_VALUES),
        namespaces=some(_VALUES["source.namespace"]),
        not_namespaces=some(_VALUES["source.namespace"]),
        service_accounts=some(_VALUES["source.serviceAccount"]),
        trust_domains=some(_VALUES["source.trustDomain"]),
        not_trust_domains=some(_VALUES["source.trustDomain"]),
        ip_blocks=some(_BLOCKS),
        not_ip_blocks=some(_BLOCKS),
        request_principals=some(_VALUES["request.auth.principal"]),
    )
    | st.builds(Source, principals=some(_PRINCIPAL_VALUES))
    | st.builds(Source, ip_blocks=some(_BLOCKS))
)
operations = st.builds(
    Operation,
    ports=some(["80", "443"]),
    not_ports=some(["80", "443"]),
    methods=some(_METHODS),
    not_methods=some(_METHODS),
    paths=some(_PATH_VALUES),
    not_paths=some(_PATH_VALUES),
    hosts=some(_HOSTS),
    not_hosts=some(_HOSTS),
) | st.builds(Operation, ports=some(["80", "443"]))
conditions = st.sampled_from(sorted(_VALUES)).flatmap(
    lambda key: st.builds(Condition, st.just(key), some(_VALUES[key]), some(_VALUES[key]))
)


def few(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=2).map(tuple)


rules = st.builds(Rule, few(sources), few(operations), few(conditions))
written = st.lists(st.tuples(st.sampled_from(list(Action)), few(rules)), max_size=6).map(
    lambda each: tuple(
        AuthorizationPolicy(Metadata("AuthorizationPolicy", "foo", f"p{number}"), action, of_rules, Selector({}))
        for number, (action, of_rules) in enumerate(each)
    )
)
texts = st.sampled_from(["", "a", "ab", "b", "c", "B"])
claims = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from(["i", "", "i/x", 7]),
        "sub": st.sampled_from(["s", "", "x"]),
        "aud": texts | st.lists(texts, max_size=2),
        "azp": texts,
        "a": st.fixed_dictionaries({"b": texts | st.lists(texts, max_size=2) | st.integers()}) | texts,
    },
)
http_facts = st.builds(
    HttpFacts,
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["/a", "/a/b", "/b", "/", "/a/b/c", "/a?b"]),
    st.sampled_from(["a.example", "A.Example", "b.example:80", ""]),
    st.dictionaries(st.just("x-a"), texts, max_size=1),
    claims,
)
facts_of_all_kinds = st.builds(
    Facts,
    st.sampled_from([80, 443, 8080]),
    st.none() | st.sampled_from(_PRINCIPALS),
    st.none() | st.sampled_from(_ADDRESSES),
    st.none() | st.sampled_from(_ADDRESSES),
    st.none() | st.sampled_from(_ADDRESSES),
    texts,
    st.none() | http_facts,
)


@settings(max_examples=100, deadline=None)
@given(written, st.lists(facts_of_all_kinds, min_size=1, max_size=8))
def test_compiled_decisions_are_those_of_a_plain_reading(
    given_policies: tuple[AuthorizationPolicy, ...], questions: list[Facts]
) -> None:
    compiled = compile_policies(given_policies, HTTPBIN, trust_domain="cluster.local", trust_domain_aliases=["old.td"])

    for facts in questions:
        expected = verdict(given_policies, facts, aliases=["old.td"])
        for _ in range(2):  # the second is remembered
            decision = compiled.decide(facts)
            assert decision.allowed is expected
            assert is_explained(decision, given_policies, facts)


def is_explained(decision: Decision, given_policies: tuple[AuthorizationPolicy, ...], facts: Facts) -> bool:
    """Whether the rule that is named is one that matches, and there is no earlier one of its action."""
    audited = [each.metadata.key for each in given_policies if each.action is Action.AUDIT]
    names_of = ["cluster.local", "old.td"]
    if decision.audited != tuple(
        each.metadata.key for each in given_policies if each.metadata.key in audited and matches(each, facts, names_of)
    ):
        return False
    matching = [
        (each.action, each.metadata.key, number)
        for each in given_policies
        for number, rule in enumerate(each.rules)
        if matches(replace(each, rules=(rule,)), facts, names_of)
    ]
    for action in (Action.CUSTOM, Action.DENY, Action.ALLOW):
        for found in matching:
            if found[0] is action:
                return (decision.action, decision.policy, decision.rule) == found
    return decision.policy is None


@settings(max_examples=25, deadline=None)
@given(written, facts_of_all_kinds, few(rules))
def test_a_deny_policy_more_never_allows_anything_more(
    given_policies: tuple[AuthorizationPolicy, ...], facts: Facts, of_rules: tuple[Rule, ...]
) -> None:
    more = AuthorizationPolicy(Metadata("AuthorizationPolicy", "foo", "more"), Action.DENY, of_rules, Selector({}))

    assert not decide([*given_policies, more], facts).allowed or decide(given_policies, facts).allowed


@settings(max_examples=25, deadline=None)
@given(written, facts_of_all_kinds, few(rules))
def test_an_allow_policy_more_never_denies_where_there_is_one_already(
    given_policies: tuple[AuthorizationPolicy, ...], facts: Facts, of_rules: tuple[Rule, ...]
) -> None:
    one, more = (
        AuthorizationPolicy(Metadata("AuthorizationPolicy", "foo", name), Action.ALLOW, rule, Selector({}))
        for name, rule in (("one", ()), ("more", of_rules))
    )

    before = decide([*given_policies, one], facts).allowed
    assert decide([*given_policies, one, more], facts).allowed or not before


@settings(max_examples=25, deadline=None)
@given(written, facts_of_all_kinds)
def test_what_matches_a_deny_policy_is_denied_whatever_else_there_is(
    given_policies: tuple[AuthorizationPolicy, ...], facts: Facts
) -> None:
    denying = [each for each in given_policies if each.action is Action.DENY]

    if not decide(denying, facts).allowed:
        assert not decide(given_policies, facts).allowed


@settings(max_examples=25, deadline=None)
@given(written, facts_of_all_kinds, st.randoms(use_true_random=False))
def test_the_order_in_which_policies_are_given_does_not_matter(
    given_policies: tuple[AuthorizationPolicy, ...], facts: Facts, random: Any
) -> None:
    shuffled = list(given_policies)
    random.shuffle(shuffled)

    assert decide(shuffled, facts) == decide(given_policies, facts)


@settings(max_examples=25, deadline=None)
@given(written, facts_of_all_kinds)
def test_dry_run_tells_exactly_what_would_be_decided(
    given_policies: tuple[AuthorizationPolicy, ...], facts: Facts
) -> None:
    dry = [replace(each, dry_run=True) for each in given_policies]
    decision = decide(dry, facts)

    assert decision.allowed
    if dry:
        assert decision.dry_run == replace(decide(given_policies, facts), audited=())
