"""The table of checks: names, groups, what is chosen; and that what is shown of a good mesh is good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import check as command
from cli.checks import table
from cli.checks.facts import ClusterFacts, known, unknown
from cli.checks.findings import Check, Group, Status
from mesh.errors import UserError
from tests.cli.checks.rig import NOW, good

DOCUMENT = Path(__file__).parents[3] / "docs" / "check.md"
_OBJECTS = (
    *("nodes", "namespaces", "webhooks", "daemon_sets", "dns", "workloads", "control_pods", "services", "endpoints"),
    *("budgets", "leases", "cluster_roles", "cluster_bindings", "roles", "bindings", "pods", "mesh_services"),
    "network_policies",
)


def test_there_are_more_checks_than_were_promised_and_each_has_a_name_of_its_own() -> None:
    names = [check.name for check in table.EVERY]
    assert len(names) == len(set(names)) >= 40
    assert not set(names) & {group.value for group in Group}
    assert {check.group for check in table.EVERY} == set(Group)


def test_the_list_has_a_line_for_each() -> None:
    lines = command.listing().splitlines()
    assert [line.split()[0] for line in lines] == [check.name for check in table.EVERY]
    assert all(check.about in line for check, line in zip(table.EVERY, lines, strict=True))


def test_the_documentation_has_the_same_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("## The checks")[2]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{check.name}` | {check.group.value} | {check.about} |" for check in table.EVERY]


@pytest.mark.parametrize("check", table.CLUSTER, ids=lambda check: check.name)
def test_a_mesh_in_good_order_passes(check: Check[ClusterFacts]) -> None:
    found = check.run(good())
    expected = Status.WARNING if check.name == "leftovers" else Status.PASS  # there is an installation
    assert found.status is expected, found


@pytest.mark.parametrize("check", table.CLUSTER, ids=lambda check: check.name)
def test_what_could_not_be_found_out_is_skipped_with_the_reason(check: Check[ClusterFacts]) -> None:
    found = check.run(ClusterFacts(now=NOW, version=unknown("no right to ask")))
    assert found.status is Status.SKIPPED
    assert found.detail in ("no right to ask", "was not asked for")


_KEYS = st.sampled_from(
    [
        *("metadata", "name", "namespace", "labels", "annotations", "spec", "status", "containers", "initContainers"),
        *("containerStatuses", "state", "terminated", "webhooks", "clientConfig", "caBundle", "rules", "subjects"),
        *("roleRef", "verbs", "resources", "template", "selector", "matchLabels", "ports", "egress", "conditions"),
        *("nodeInfo", "replicas", "renewTime", "holderIdentity", "matchExpressions", "namespaceSelector"),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=40)  # each runs sixty checks, some of which read certificates
@given(st.dictionaries(st.sampled_from(_OBJECTS), st.lists(st.dictionaries(_KEYS, _JSON, max_size=5), max_size=3)))
def test_no_object_is_too_strange_to_be_judged(objects: dict[str, list[Any]]) -> None:
    facts = good(**objects)
    for check in table.CLUSTER:
        assert check.run(facts).status in Status


def test_names_and_groups_choose_what_is_looked_at() -> None:
    assert table.selected(table.PRE, ["tokens", "clock"], []) == {"tokens", "clock"}
    assert table.selected(table.INSTALLED, ["webhook"], ["webhook-spares"]) == {
        check.name for check in table.EVERY if check.group is Group.WEBHOOK
    } - {"webhook-spares"}
    assert "python" not in table.selected(table.INSTALLED, [], ["machine"])


def test_a_name_that_there_is_not_is_one_line_with_the_nearest() -> None:
    with pytest.raises(UserError, match="do you mean root-expiry"):
        table.selected(table.INSTALLED, ["root-expire"], [])
    with pytest.raises(UserError, match="--list` has them all"):
        table.selected(table.INSTALLED, [], ["?"])
    with pytest.raises(UserError, match="not looked at here"):
        table.selected(table.LOCAL, ["root-expiry"], [])


def test_an_unknown_fact_and_a_known_one_differ() -> None:
    assert known(()).value == ()
    assert unknown("why").reason == "why"
