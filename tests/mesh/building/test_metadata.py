"""What every resource begins with."""

from __future__ import annotations

import pytest

import pqtls
from mesh.building.metadata import PROFILE_ANNOTATION, PROFILES, match_labels, resource


def test_a_resource_has_its_fields_in_the_order_that_people_write() -> None:
    made = resource("v1", "Kind", "web", "shop", {}, labels={"b": "2", "a": "1"}, annotations={"d": "4", "c": "3"})

    assert list(made) == ["apiVersion", "kind", "metadata", "spec"]
    assert list(made["metadata"]) == ["name", "namespace", "labels", "annotations"]
    assert list(made["metadata"]["labels"]) == ["a", "b"]
    assert list(made["metadata"]["annotations"]) == ["c", "d"]


def test_no_labels_are_no_field() -> None:
    assert resource("v1", "Kind", "web", "shop", {}, labels={}, annotations=None)["metadata"] == {
        "name": "web",
        "namespace": "shop",
    }


@pytest.mark.parametrize(
    ("name", "namespace", "argument"),
    [("Web", "shop", "name"), ("web", "shop.eu", "namespace"), (None, "shop", "name")],
)
def test_names_are_kubernetes_s(name: object, namespace: object, argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        resource("v1", "Kind", name, namespace, {})


def test_an_empty_selector_is_refused_because_it_would_be_everything() -> None:
    assert match_labels("selector", {"b": "2", "a": "1"}) == {"matchLabels": {"a": "1", "b": "2"}}
    with pytest.raises(ValueError, match=r"^selector: "):
        match_labels("selector", {})


def test_the_profiles_are_those_that_the_engine_speaks() -> None:
    assert set(PROFILES) == set(pqtls.PROFILES)


def test_the_profile_s_annotation_is_not_in_istio_s_name() -> None:
    # Istio's analysis reports annotations of istio.io that it does not know (IST0108).
    domain, _, _ = PROFILE_ANNOTATION.partition("/")

    assert not domain.endswith("istio.io")
