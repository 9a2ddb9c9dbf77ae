"""Who a resource is."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.documents import Problem
from mesh.metadata import Metadata
from mesh.resources import ResourceSet
from tests.support.policies import resource_set, resources, told


def with_metadata(metadata: str) -> ResourceSet:
    return resource_set(f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {metadata}\n")


def test_name_namespace_annotations_labels_and_time_are_read_and_the_rest_is_left_to_the_api_server() -> None:
    (found,) = resources(
        """
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata:
          name: default
          namespace: shop
          uid: 1234
          managedFields: [{}]
          resourceVersion: "7"
          creationTimestamp: "2026-01-31T12:00:00Z"
          annotations: {qbitel.io/profile: cnsa2}
          labels: {team: shop}
        """
    ).peer_authentications

    metadata = found.metadata
    assert (metadata.key, metadata.created) == ("shop/default", "2026-01-31T12:00:00Z")
    assert metadata.annotations == {"qbitel.io/profile": "cnsa2"}
    assert metadata.labels == {"team": "shop"}
    assert str(metadata) == "PeerAuthentication shop/default"
    assert (metadata.source, metadata.line(), metadata.line(("metadata", "labels"))) == ("test.yaml", 2, 12)


def test_without_a_namespace_it_is_default_and_that_is_noted() -> None:
    found = with_metadata("{name: x}")

    assert found.peer_authentications[0].metadata.namespace == "default"
    assert told(found.problems, "note") == ["metadata: names no namespace: read as default"]


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ("{}", "metadata.name: is missing"),
        ("null", "metadata: is missing: each resource has a name"),
        ("[]", "metadata: is missing: each resource has a name"),
        ("{name: Web}", "metadata.name: 'Web' is no name: lower-case letters, digits, '-' and '.'"),
        ("{name: -web}", "metadata.name: '-web' is no name: lower-case letters, digits, '-' and '.'"),
        ("{name: a..b}", "metadata.name: 'a..b' is no name: lower-case letters, digits, '-' and '.'"),
        ("{name: 7}", 'metadata.name: 7 stands where text is wanted; write "7"'),
        (
            "{name: x, namespace: a.b}",
            "metadata.namespace: 'a.b' is no namespace: up to 63 lower-case letters, digits and '-'",
        ),
        ("{name: x, namespace: }", "metadata.namespace: is null; leave it out where nothing is meant"),
        ("{name: x, annotations: {a: 1}}", 'metadata.annotations.a: 1 stands where text is wanted; write "1"'),
        ("{name: x, labels: []}", "metadata.labels: a list stands where a map is wanted"),
    ],
)
def test_what_names_nothing_is_refused(metadata: str, fault: str) -> None:
    found = with_metadata(metadata)

    assert told(found.problems) == [fault]
    assert found.peer_authentications == ()


def test_a_name_may_be_as_long_as_kubernetes_lets_it_be() -> None:
    longest = ".".join(["x" * 63] * 3 + ["x" * 61])

    assert told(with_metadata(f"{{name: {longest}, namespace: a}}").problems) == []
    assert "254 characters" in told(with_metadata(f"{{name: {longest}x}}").problems)[0]


def test_empty_annotations_as_an_api_server_dumps_them_are_none() -> None:
    (found,) = with_metadata("{name: x, namespace: a, annotations: , labels: }").peer_authentications

    assert found.metadata.annotations == {}


@pytest.mark.parametrize("created", ["null", '"yesterday"', "2026", '"2026-01-31T12:00:00+01:00"'])
def test_a_time_that_is_not_the_api_server_s_makes_a_resource_the_youngest(created: str) -> None:
    (found,) = with_metadata(f"{{name: x, namespace: a, creationTimestamp: {created}}}").peer_authentications

    assert found.metadata.age > Metadata("PeerAuthentication", "a", "x", created="9999-12-31T23:59:59Z").age


def test_ages_sort_by_time_then_name_then_namespace() -> None:
    def made(namespace: str, name: str, created: str = "") -> Metadata:
        more: dict[str, Any] = {"created": created} if created else {}
        return Metadata("PeerAuthentication", namespace, name, **more)

    in_order = [
        made("z", "z", "2025-12-31T23:59:59Z"),
        made("b", "a", "2026-01-01T00:00:00Z"),
        made("a", "b", "2026-01-01T00:00:00Z"),
        made("b", "b", "2026-01-01T00:00:00Z"),
        made("a", "a"),
    ]

    backwards = list(reversed(in_order))
    assert sorted(backwards, key=lambda each: each.age) == in_order


def test_one_that_was_built_has_no_place_and_its_problems_say_who_it_is() -> None:
    built = Metadata("PeerAuthentication", "a", "x")

    assert (built.source, built.line(("spec",))) == ("", 0)
    assert built.problem(("spec",), "is odd", "warning") == Problem(
        "", 0, "", "PeerAuthentication a/x", "is odd", "warning"
    )
