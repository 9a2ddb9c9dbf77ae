"""Who is worth asking about."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.authorization import Action, AuthorizationPolicy
from mesh.inventory import Inventory
from mesh.metadata import Metadata
from mesh.questions import ANY_OTHER, SOME_NAMESPACE, callers, has_patterns, workloads
from mesh.resources import ResourceSet
from mesh.selectors import Selector
from tests.mesh.written import allow, from_account, resource, resources, strict


def principals(*texts: str) -> dict[str | None, str]:
    policies = resources(*texts).authorization_policies
    return {one.principal: one.words for one in callers(policies, (), "cluster.local")}


OTHERS = {
    "cluster.local/ns/some-namespace/sa/some-account": "any other identity",
    None: "without identity",
}


def test_whoever_is_named_is_asked_about_and_one_for_all_others() -> None:
    assert principals() == OTHERS
    assert principals(allow("shop/a", f"[{{{from_account('shop/front')}}}]")) == {
        "cluster.local/ns/shop/sa/front": "cluster.local/ns/shop/sa/front",
        **OTHERS,
    }


def test_each_way_to_name_somebody_counts() -> None:
    sources = (
        "[{source: {serviceAccounts: [web, other/db]}}, {source: {notNamespaces: [prod]}}, "
        "{source: {trustDomains: [a.org]}}, {source: {principals: [cluster.local/ns/x/*, '*/sa/batch', '*']}}]"
    )
    when = (
        "[{key: source.principal, notValues: [cluster.local/ns/shop/sa/bad]}, {key: source.namespace, values: [dev]}]"
    )
    found = principals(allow("shop/a", f"[{{from: {sources}}}, {{when: {when}}}]"))

    assert found.items() > OTHERS.items()
    assert found["cluster.local/ns/shop/sa/web"] == "cluster.local/ns/shop/sa/web"
    assert found["cluster.local/ns/other/sa/db"] == "cluster.local/ns/other/sa/db"
    assert found["cluster.local/ns/shop/sa/bad"] == "cluster.local/ns/shop/sa/bad"
    assert found["cluster.local/ns/prod/sa/some-account"] == "any other account of namespace prod"
    assert found["cluster.local/ns/dev/sa/some-account"] == "any other account of namespace dev"
    assert found["a.org/ns/some-namespace/sa/some-account"] == "any identity of trust domain a.org"
    assert found["cluster.local/ns/x/some-account"] == "principals cluster.local/ns/x/*"
    assert found["sa/batch"] == "principals */sa/batch"
    assert len(found) == 10


def test_somebody_of_each_namespace_can_be_asked_about() -> None:
    found = callers((), ["shop"], "a.org")

    assert [(one.principal, one.namespace) for one in found] == [
        ("a.org/ns/shop/sa/some-account", "shop"),
        ("a.org/ns/some-namespace/sa/some-account", "some-namespace"),
        (None, ""),
    ]


def names(*texts: str) -> list[str]:
    return [f"{one} {dict(one.labels)}" for one in workloads([resources(*texts)])]


def test_whatever_a_selector_means_is_asked_about_and_one_for_all_others() -> None:
    assert names(strict(), allow("shop/web", "[{}]", "{app: web}")) == [
        "shop/app=web {'app': 'web'}",
        f"shop/{ANY_OTHER} {{}}",
        f"{SOME_NAMESPACE}/{ANY_OTHER} {{}}",
    ]


def test_a_selector_of_the_root_namespace_is_asked_about_in_every_namespace() -> None:
    found = names(strict(), allow("istio-system/web", "[{}]", "{app: web}"))

    assert f"{SOME_NAMESPACE}/app=web {{'app': 'web'}}" in found
    assert "shop/app=web {'app': 'web'}" in found
    assert not any(one.startswith("istio-system/") for one in found)


def test_a_workload_that_is_known_stands_for_the_selectors_that_mean_it() -> None:
    deployment = resource("Deployment", "shop/web", "{template: {metadata: {labels: {app: web, tier: a}}}}")

    assert names(deployment, allow("shop/web", "[{}]", "{app: web}"))[0] == "shop/web {'app': 'web', 'tier': 'a'}"
    assert len(names(deployment, allow("shop/web", "[{}]", "{app: web}"))) == 3


LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["one", "two"]), max_size=2)
SELECTING = st.builds(
    lambda namespace, labels: AuthorizationPolicy(
        Metadata("AuthorizationPolicy", namespace, "a"), Action.DENY, (), Selector(labels)
    ),
    st.sampled_from(["a", "b", "istio-system"]),
    LABELS,
)
DEPLOYED = st.builds(
    lambda namespace, labels: resource(
        "Deployment", f"{namespace}/some", f"{{template: {{metadata: {{labels: {json.dumps(labels)}}}}}}}"
    ),
    st.sampled_from(["a", "b"]),
    LABELS,
)
SETS = st.builds(
    lambda policies, texts: replace(resources(*texts), authorization_policies=tuple(policies)),
    st.lists(SELECTING, max_size=6),
    st.lists(DEPLOYED, max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(SETS, SETS)
def test_workloads_are_those_that_a_look_at_each_selector_in_turn_finds(
    first: ResourceSet, second: ResourceSet
) -> None:
    made = [one.workload for each in (first, second) for one in Inventory.of(each.foreign).workloads]
    scopes = [(one.metadata.namespace, one.selector) for each in (first, second) for one in each.authorization_policies]
    expected: set[object] = set()
    namespaces = {one.namespace for one in made} | {namespace for namespace, _ in scopes}
    for namespace in (*sorted(namespaces - {"istio-system"}), SOME_NAMESPACE):
        there = [dict(one.labels) for one in made if one.namespace == namespace]
        for its, selector in scopes:
            mine = its in (namespace, "istio-system") and selector.match_labels
            if mine and not any(selector.selects_labels(labels) for labels in there):
                there.append(dict(selector.match_labels))
        expected |= {(namespace, frozenset(labels.items())) for labels in (*there, {})}

    assert {(one.namespace, frozenset(one.labels.items())) for one in workloads((first, second))} == expected


def test_a_pattern_is_what_fits_some_accounts_and_not_all() -> None:
    def patterns(*sources: str) -> bool:
        written = ", ".join(f"{{source: {one}}}" for one in sources)
        return has_patterns(resources(allow("shop/a", f"[{{from: [{written}]}}]")).authorization_policies)

    assert not patterns("{principals: ['*'], notNamespaces: [shop]}", "{serviceAccounts: [web]}")
    assert patterns("{principals: ['cluster.local/ns/shop/*']}")
    assert patterns("{notNamespaces: ['shop-*']}")
