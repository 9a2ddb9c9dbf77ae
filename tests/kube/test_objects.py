"""What every object of the API has."""

from __future__ import annotations

from kube.objects import key_of, version_of


def test_an_object_is_known_by_its_namespace_and_name() -> None:
    assert key_of({"metadata": {"namespace": "shop", "name": "web"}}) == ("shop", "web")
    assert key_of({"metadata": {"name": "shop"}}) == ("", "shop")


def test_versions_are_compared_as_numbers() -> None:
    nine, ten = ({"metadata": {"resourceVersion": version}} for version in ("9", "10"))

    assert version_of(nine) < version_of(ten)
