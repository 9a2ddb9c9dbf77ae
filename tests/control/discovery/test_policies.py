"""Policies of a cluster → lines that sidecars read; what cannot be read is said, and never published."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.discovery import policies
from control.discovery.policies import (
    Part,
    Reading,
    own_lines,
    part_of,
    policies_text,
    read_config_map,
    read_resource,
    recovered_part,
    service_line,
)
from mesh.documents import read_documents
from mesh.resources import ResourceSet
from tests.control.discovery.objects import allow, peer_authentication

SECURITY = "security.istio.io/v1"


def resource(spec: dict[str, Any], name: str = "web", namespace: str = "shop", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec}


def policy(name: str = "web", namespace: str = "shop", **metadata: Any) -> Reading:
    return read_resource(resource(allow("api"), name, namespace, **metadata), SECURITY, "AuthorizationPolicy")


def config_map(text: str, namespace: str = "shop", **more: Any) -> Reading:
    return read_config_map(
        {"metadata": {"name": "policies", "namespace": namespace}, "data": {"web.yaml": text}, **more}
    )


def read_by_sidecar(text: str) -> ResourceSet:
    documents, problems = read_documents(text.encode(), "policies.yaml")
    assert problems == ()
    resources = ResourceSet.of(documents, root_namespace="qbitel-system")
    assert resources.errors == ()
    return resources


YAML = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec: {action: DENY, rules: [{}]}
"""


def test_a_resource_becomes_a_line_that_sidecars_read() -> None:
    (found,) = policy().policies

    assert str(found) == "AuthorizationPolicy shop/web"
    (read,) = read_by_sidecar(policies_text([found.line])).authorization_policies
    assert read.metadata.key == "shop/web"


def test_of_metadata_that_is_published_which_means_something() -> None:
    (found,) = policy(
        creationTimestamp="2026-01-01T00:00:00Z",
        uid="x",
        resourceVersion="7",
        labels={"a": "b"},
        managedFields=[{"manager": "kubectl"}],
        annotations={"istio.io/dry-run": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    ).policies

    assert json.loads(found.line)["metadata"] == {
        "name": "web",
        "namespace": "shop",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"istio.io/dry-run": "true"},
    }


def test_a_resource_with_an_error_is_a_fault_that_names_it() -> None:
    found = read_resource(resource({"action": "MAYBE"}), SECURITY, "AuthorizationPolicy")

    assert found.policies == ()
    assert "AuthorizationPolicy shop/web: spec.action" in found.faults[0]


@pytest.mark.parametrize(
    ("spec", "api", "kind"),
    [
        (
            {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]},
            "networking.istio.io/v1",
            "VirtualService",
        ),
        ({"configPatches": []}, "networking.istio.io/v1alpha3", "EnvoyFilter"),
    ],
)
def test_what_no_sidecar_follows_takes_no_room(spec: dict[str, Any], api: str, kind: str) -> None:
    assert read_resource(resource(spec), api, kind) == Reading()


def test_a_config_map_s_documents_are_its_own_namespace_s() -> None:
    found = config_map(YAML)

    assert [str(one) for one in found.policies] == ["PeerAuthentication shop/default", "AuthorizationPolicy shop/web"]
    assert found.faults == ()


def test_a_document_that_names_another_namespace_is_refused() -> None:
    found = config_map(YAML, namespace="bank")

    assert [str(one) for one in found.policies] == ["PeerAuthentication bank/default"]
    (fault,) = found.faults
    assert fault.startswith("ConfigMap bank/policies web.yaml:9: AuthorizationPolicy shop/web: metadata.namespace")
    assert "holds in bank alone" in fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "web.yaml"),
        ("apiVersion: security.istio.io/v1\nkind: PeerAuthentification\nmetadata: {name: a}\n", "is no kind of"),
        ("kind: x\n", "apiVersion and kind are missing"),
        (
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: [shop]}\n",
            "names the namespace",
        ),
        ("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: 7\n", "metadata"),
        ("apiVersion: security.istio.io/v1\nkind: [PeerAuthentication]\nmetadata: {name: a}\n", "kind"),
    ],
)
def test_what_cannot_be_read_is_a_fault(text: str, fault: str) -> None:
    found = config_map(text)

    assert found.policies == ()
    assert fault in found.faults[0]


def test_binary_data_is_no_policy_and_not_passed_over() -> None:
    assert "binaryData is not read" in config_map("", binaryData={"a": "AA=="}).faults[0]


def test_other_kinds_in_a_config_map_are_left_alone() -> None:
    assert config_map("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n") == Reading()


# A namespace's part


def test_a_part_is_in_order_whatever_the_order_of_its_objects() -> None:
    first, second = policy("a"), policy("b")

    assert part_of([second, first]) == part_of([first, second])


def test_two_of_one_name_are_a_fault() -> None:
    _, faults = part_of([policy(), config_map(YAML)])

    assert faults == ("AuthorizationPolicy shop/web is given twice; leave one of them out",)


def test_more_policies_than_a_sidecar_reads_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MAX_POLICIES", 3)
    _, faults = part_of([policy("a"), policy("b")])

    assert "more policies (2) than a sidecar reads" in faults[0]


def test_the_document_of_nothing_is_read_as_nothing() -> None:
    assert read_by_sidecar(policies_text([])) == ResourceSet(root_namespace="qbitel-system")


def test_a_service_in_the_document_is_known_to_the_sidecar_s_inventory() -> None:
    from mesh.inventory import Inventory
    from mesh.selectors import Workload

    line = service_line("shop", "web", {"app": "web"}, [{"name": "http", "port": 80, "targetPort": "http"}])
    (found,) = Inventory.of(read_by_sidecar(policies_text([line])).foreign).services

    assert found.selects(Workload("shop", {"app": "web"}, "web"))


def test_what_was_published_is_read_back_for_one_namespace() -> None:
    mine, _ = part_of([policy("a"), policy("b")])
    root, _ = part_of([policy("everybody", "qbitel-system")])
    service = service_line("shop", "web", {"app": "web"}, [])
    lines = own_lines(policies_text([*mine.lines, *root.lines, service]), "shop")

    assert lines is not None
    assert recovered_part(lines, "shop") == mine
    assert recovered_part(own_lines(policies_text([]), "shop") or (), "shop") == Part()


def test_what_somebody_has_changed_into_something_else_is_not_taken_back() -> None:
    (found,) = policy().policies

    assert own_lines("items: []", "shop") is None
    for line in ("{", "[]", "7", found.line.replace("ALLOW", "MAYBE"), "[" * 100_000):
        part = recovered_part([line], "shop")
        assert part is None or part == Part()
    assert recovered_part([found.line.replace('"shop"', '"bank"')], "shop") == Part()


def test_a_document_cut_or_changed_at_any_byte_is_read_or_refused() -> None:
    text = policies_text(policy().policies[0].line for _ in range(1))
    for place in range(len(text)):
        for changed in (
            text[:place],
            text[:place] + "\x00" + text[place + 1 :],
            text[:place] + "{" + text[place + 1 :],
        ):
            lines = own_lines(changed, "shop")
            if lines is not None:
                recovered_part(lines, "shop")


# Every text that JSON can have in it must mean the same to the sidecar's reader.


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_characters_arrive_as_they_are(value: str) -> None:
    spec = {"rules": [{"when": [{"key": "source.principal", "values": [f"a{value}b"]}]}]}
    found = read_resource(resource(spec), SECURITY, "AuthorizationPolicy")
    if found.faults:
        return
    documents, problems = read_documents(policies_text([found.policies[0].line]).encode(), "x")

    assert problems == ()
    assert documents[0].value["spec"] == spec


def test_a_lone_surrogate_is_a_fault() -> None:
    spec = {"rules": [{"when": [{"key": "source.principal", "values": ["\ud800"]}]}]}
    found = read_resource(resource(spec), SECURITY, "AuthorizationPolicy")

    assert found.policies == ()
    assert found.faults


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["action", "rules", "selector", "mtls", "x"]), VALUES, max_size=3))
def test_a_spec_of_any_shape_is_read_or_a_fault(spec: dict[str, Any]) -> None:
    for kind in ("AuthorizationPolicy", "PeerAuthentication"):
        found = read_resource(resource(spec), SECURITY, kind)
        read_by_sidecar(policies_text(one.line for one in found.policies))


@given(st.text(max_size=200))
def test_a_config_map_of_any_text_is_read_or_a_fault(text: str) -> None:
    found = config_map(text)
    read_by_sidecar(policies_text(one.line for one in found.policies))


def test_a_config_map_cut_or_changed_at_any_byte_is_read_or_a_fault() -> None:
    for place in range(len(YAML)):
        for changed in (YAML[:place], YAML[:place] + "\t" + YAML[place + 1 :], YAML[:place] + "[" + YAML[place + 1 :]):
            part, faults = part_of([config_map(changed)])
            read_by_sidecar(policies_text(part.lines))
            assert faults or len(part.policies) <= 2


def test_the_limit_of_nodes_counts_what_the_reader_counts() -> None:
    (found,) = read_resource(
        resource(peer_authentication("STRICT", app="web")), SECURITY, "PeerAuthentication"
    ).policies
    from mesh.documents import Limits

    _, problems = read_documents(found.line.encode(), "x", Limits(nodes=found.nodes))
    assert problems == ()
