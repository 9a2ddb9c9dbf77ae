"""The ConfigMap of a namespace: as wanted, as it stands, and the merge from one to the other."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from control.discovery.peers_text import MeshSettings, peers_text
from control.discovery.policies import policies_text
from control.discovery.published import MAX_BYTES, PROBLEM_ANNOTATION, Text, Wanted, present_of, problem_text
from mesh.names import MESH_CONFIG_MAP, PEERS_KEY, POLICIES_KEY

PEERS, POLICIES = Text.of("peers"), Text.of(policies_text([]))


def stored(wanted: Wanted, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    """What an API server has after a creation."""
    body: dict[str, Any] = {**wanted.created(namespace), **more}
    body["metadata"] = {**body["metadata"], "resourceVersion": "7", "uid": "u"}
    return body


def test_what_was_written_is_as_wanted() -> None:
    for wanted in (
        Wanted(POLICIES, PEERS),
        Wanted(POLICIES, PEERS, "why"),
        Wanted(None, PEERS),
        Wanted(None, None, "x"),
    ):
        found = present_of(stored(wanted), "qbitel-system")
        assert found.is_as(wanted)
        assert found.is_ours


def test_it_is_called_what_pods_mount_and_has_the_keys_that_they_take() -> None:
    body = Wanted(POLICIES, PEERS).created("shop")

    assert (body["metadata"]["name"], body["metadata"]["namespace"]) == (MESH_CONFIG_MAP, "shop")
    assert body["data"] == {POLICIES_KEY: POLICIES.content, PEERS_KEY: "peers"}
    assert "annotations" not in body["metadata"]


def test_a_document_that_is_not_known_stays_as_it_stands() -> None:
    found = present_of(stored(Wanted(POLICIES, PEERS)), "qbitel-system")
    change = Wanted(None, Text.of("other"), "why").change_of(found)

    assert change["data"] == {PEERS_KEY: "other"}
    assert change["metadata"] == {"resourceVersion": "7", "annotations": {PROBLEM_ANNOTATION: "why"}}
    assert found.is_as(Wanted(None, PEERS))
    assert not found.is_as(Wanted(None, PEERS, "why"))


@pytest.mark.parametrize("field", ["data", "binaryData"])
def test_keys_of_others_are_taken_away(field: str) -> None:
    wanted = Wanted(POLICIES, PEERS)
    body = stored(wanted)
    body[field] = {**body.get(field, {}), "stray.yaml": "x"}
    found = present_of(body, "qbitel-system")

    assert not found.is_as(wanted)
    assert wanted.change_of(found)["data"]["stray.yaml"] is None
    assert wanted.change_of(found)["binaryData"] is None


def test_another_s_config_map_is_known_as_such() -> None:
    body = stored(Wanted(POLICIES, PEERS))
    body["metadata"]["labels"] = {}
    found = present_of(body, "qbitel-system")

    assert (found.is_ours, found.own) == (False, None)


def test_what_is_required_is_read_in_the_control_namespace_alone() -> None:
    members = {("shop", ipaddress.ip_address("10.96.0.10")): None}
    peers = Text.of(peers_text(members, {}, MeshSettings(trust_domain="cluster.local")))

    assert present_of(stored(Wanted(None, peers), "qbitel-system"), "qbitel-system").members == members
    assert present_of(stored(Wanted(None, peers), "shop"), "qbitel-system").members == {}


def test_sizes_are_bytes_and_a_config_map_s_limit_is_known() -> None:
    assert Wanted(Text.of("é"), Text.of("ab")).size == 4
    assert Wanted(None, None).size == 0
    assert MAX_BYTES + len(PEERS_KEY) + len(POLICIES_KEY) <= 1 << 20


def test_a_goal_is_another_where_anything_is() -> None:
    goals = {
        Wanted(policies, peers, problem).goal
        for policies in (None, POLICIES)
        for peers in (None, PEERS)
        for problem in ("", "x")
    }

    assert len(goals) == 8


def test_a_problem_is_one_short_line() -> None:
    assert problem_text(()) == ""
    assert problem_text(("a\nb", "c")) == "a b; c"
    assert len(problem_text(("x" * 5000,))) == 1000
