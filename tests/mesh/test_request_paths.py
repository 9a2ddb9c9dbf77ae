"""Paths of requests, and templates of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.request_paths import Paths, origin_form, plain_path, template_ends


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/a?b", ("/a?b", None)),
        ("http://web/a?b", ("/a?b", "web")),
        ("HTTPS://web:8080", ("/", "web:8080")),
        ("http://web?b", ("/?b", "web")),
        ("http://good@evil/a", ("/a", "evil")),
        ("//web/a", ("//web/a", None)),
        ("/a://b", ("/a://b", None)),
        ("*", ("*", None)),
    ],
)
def test_a_target_may_name_its_host(target: str, parts: tuple[str, str | None]) -> None:
    assert origin_form(target) == parts


@pytest.mark.parametrize(
    ("path", "ends"), [("/{*}", ("/", "")), ("/a/{*}/b", ("/a/", "/b")), ("/a/{*}/b/{**}", ("/a/", ""))]
)
def test_how_the_paths_of_a_template_begin_and_end(path: str, ends: tuple[str, str]) -> None:
    assert template_ends(path) == ends


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a?b#c", "/a"),
        ("/a#c?b", "/a"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/../../a", "/a"),
        ("/..", "/"),
        ("/a/..b/.c", "/a/..b/.c"),
        ("/%41%62%2e%7E%5f%2D", "/Ab.~_-"),
        ("/%2e%2E/a", "/a"),
        ("/%2f%5C%00%3f", "/%2f%5C%00%3f"),
        ("/a\\b", "/a/b"),
        ("/a\\..\\b", "/b"),
        ("//a//b", "//a//b"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_the_path_that_policies_see(target: str, path: str) -> None:
    assert plain_path(target) == path


@given(st.text(alphabet="/.a%2eE\\?#", max_size=30).map("/{}".format))
def test_no_path_that_policies_see_goes_up(target: str) -> None:
    path = plain_path(target)

    assert not {".", ".."}.intersection(path.split("/"))
    assert not re.search(r"[?#\\]", path)
    assert path.startswith("/")


@pytest.mark.parametrize(
    ("value", "path", "matches"),
    [
        ("/{*}", "/a", True),
        ("/{*}", "/", False),
        ("/{*}", "/a/b", False),
        ("/{*}", "/a*b", False),
        ("/a.c/{*}", "/abc/x", False),
        ("/{**}", "/", True),
        ("/{**}", "/a/b/", True),
        ("/a/{**}/z", "/a/b/c/z", True),
        ("/a/{**}/z", "/a/z", False),
        ("/a/{**}/z", "/a//z", True),
    ],
)
def test_templates(value: str, path: str, matches: bool) -> None:
    assert Paths.of([value, "/other"]).match(path) is matches
