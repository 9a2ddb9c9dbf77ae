"""Callers' names as principals."""

from __future__ import annotations

from typing import Any

import pytest

from control.sources import principals


def test_a_name_is_the_service_account_of_that_name() -> None:
    assert principals("sources", ["web", "jobs/batch", "td.example/ns/shop/sa/web"], "shop", "cluster.local") == [
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/jobs/sa/batch",
        "td.example/ns/shop/sa/web",
    ]


def test_anyone_with_an_identity_stands_alone() -> None:
    assert principals("sources", ["*"], "shop", "cluster.local") == ["*"]
    with pytest.raises(ValueError, match=r"^sources: '\*' stands alone"):
        principals("sources", ["*", "web"], "shop", "cluster.local")


def test_the_same_caller_in_two_spellings_is_told() -> None:
    with pytest.raises(ValueError, match=r"^sources\[1\]: .* twice"):
        principals("sources", ["web", "shop/web"], "shop", "cluster.local")


@pytest.mark.parametrize(
    "source",
    ["", "Web", "a/b/c", "/web", "shop/", "spiffe://cluster.local/ns/shop/sa/web", "td/ns/a/sa/", None, 1, ["web"]],
)
def test_what_is_no_caller_is_refused(source: Any) -> None:
    with pytest.raises(ValueError, match=r"^sources\[0\]: "):
        principals("sources", [source], "shop", "cluster.local")


@pytest.mark.parametrize("sources", ["web", None, {"web"}])
def test_what_is_no_list_is_refused(sources: Any) -> None:
    with pytest.raises(ValueError, match=r"^sources: "):
        principals("sources", sources, "shop", "cluster.local")
