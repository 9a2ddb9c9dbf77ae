"""Paths of an AuthorizationPolicy."""

from __future__ import annotations

import pytest

from mesh.building.path_templates import path


@pytest.mark.parametrize(
    "value", ["/", "/a", "/a*", "*/a", "*", "/a/{*}", "/a/{*}/b/{**}", "/{**}", "{**}", "/a/{*}/", "/a b/c", "/{**}/b"]
)
def test_exact_paths_ends_and_templates_are_taken(value: str) -> None:
    assert path("paths", value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "/a*b",
        "*a*",
        "/{a}",
        "/a{*}",
        "/{*}b",
        "/{**}/{*}",
        "/{**}/{**}",
        "/a/{",
        "/}",
        "/{*}/a b",
        "/{*}/*",
        "/\n",
        1,
    ],
)
def test_others_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^paths: "):
        path("paths", value)
