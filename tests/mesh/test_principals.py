"""Who a peer is, and which namespaces and accounts policies name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.principals import Identity, Namespaces, account_of, is_account_within, with_aliases


@pytest.mark.parametrize(
    ("principal", "identity"),
    [
        ("cluster.local/ns/shop/sa/web", ("cluster.local", "shop", "web")),
        ("td/ns/shop", ("td", "shop", "")),
        ("td/ns/shop/cluster/a/sa/web", ("td", "shop", "web")),
        ("td/ns/shop/sa/web/pod/x", ("td", "shop", "web")),
        ("td/ns/shop/sa/web/sa/admin", ("td", "shop", "web")),
        ("td/ns/ns/sa/sa", ("td", "ns", "sa")),
        ("td/ns/shop/sa", ("td", "", "")),
        ("td/workload/web", ("td", "", "")),
        ("td/sa/web/ns/shop", ("td", "", "")),
        ("td/x/ns/shop/sa/web", ("td", "", "")),
        ("td", ("td", "", "")),
        ("", ("", "", "")),
    ],
)
def test_the_parts_of_an_identity(principal: str, identity: tuple[str, str, str]) -> None:
    assert Identity.of(principal) == Identity(*identity)


def test_an_account_is_known_by_namespace_and_name() -> None:
    assert Identity("td", "shop", "web").account == "shop/web"
    assert Identity("td", "shop", "").account == ""
    assert account_of("web", "shop") == "shop/web"
    assert account_of("other/web", "shop") == "other/web"


@pytest.mark.parametrize(
    ("value", "name", "matches"),
    [
        *[("a", "a", True), ("a*", "abc", True), ("a*c", "abc", True), ("a.c", "abc", False), ("*", "a", True)],
        *[("*", "", False), ("a*a", "a", False), ("a*b*c", "axbybc", True), ("a*b*c", "acb", False), ("**", "a", True)],
    ],
)
def test_a_namespace_may_have_stars_anywhere(value: str, name: str, matches: bool) -> None:
    assert Namespaces.of([value]).match(name) is matches


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab", min_size=1, max_size=12))
def test_stars_stand_for_what_they_would_in_a_regular_expression(value: str, name: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, value.split("*"))), name) is not None
    found = Namespaces.of([value])

    assert found.match(name) is expected
    if expected:
        assert name in found.ends.exact or any(
            name.startswith(begin) and name.endswith(end) for begin, end in found.ends.ends
        )


def test_many_stars_take_no_longer_than_the_text_is() -> None:
    """A regular expression would share out 63 letters among 30 stars in 10^17 ways before it gave up."""
    assert not Namespaces.of(["*a" * 30 + "*b*a"]).match("a" * 63)


@pytest.mark.parametrize(
    ("value", "principal", "found"),
    [
        ("b", "td/x/ns/b/y", True),
        ("b", "td/ns/a/ns/b/sa/c", True),
        ("b", "td/ns/b", False),
        ("b", "td/ns/bb/sa/c", False),
        ("b*", "td/x/ns/bb/sa/c", True),
        ("*", "td/x/ns/b/sa/c", True),
        ("*", "td/x/nsb/sa/c", False),
    ],
)
def test_where_istio_would_find_a_namespace(value: str, principal: str, found: bool) -> None:
    assert Namespaces.of([value]).within(principal) is found


@pytest.mark.parametrize(
    ("principal", "found"),
    [
        ("td/x/ns/b/sa/c", True),
        ("td/ns/b/x/sa/c/y", True),
        ("td/ns/b/sa/cc", False),
        ("td/ns/b/c/sa", False),
        ("td/sa/c/ns/b/x", False),
    ],
)
def test_where_istio_would_find_an_account(principal: str, found: bool) -> None:
    assert is_account_within("b/c", principal) is found


def test_an_identity_says_whether_there_is_more_to_it() -> None:
    assert Identity.of("td/ns/a/sa/b").whole
    assert not any(Identity.of(f"td/{path}").whole for path in ("ns/a/sa/b/x/y", "x/y", "ns/a", "ns/a/sb/c", ""))


@pytest.mark.parametrize(
    ("principal", "expanded"),
    [
        ("td1/ns/foo/sa/bar", ("new/ns/foo/sa/bar", "td1/ns/foo/sa/bar")),
        ("new/ns/foo/sa/bar", ("new/ns/foo/sa/bar", "td1/ns/foo/sa/bar")),
        ("cluster.local/ns/foo/sa/bar", ("new/ns/foo/sa/bar", "td1/ns/foo/sa/bar")),
        ("*/ns/foo/sa/bar", ("*/ns/foo/sa/bar",)),
        ("*ew/ns/foo/sa/bar", ("*ew/ns/foo/sa/bar", "td1/ns/foo/sa/bar")),
        ("n*/ns/foo/sa/bar", ("new/ns/foo/sa/bar", "td1/ns/foo/sa/bar")),
        ("other/ns/foo/sa/bar", ("other/ns/foo/sa/bar",)),
        ("td1/foo", ("td1/foo",)),
        ("*", ("*",)),
        ("*/sa/bar", ("*/sa/bar",)),
    ],
)
def test_aliases_of_the_trust_domain(principal: str, expanded: tuple[str, ...]) -> None:
    assert with_aliases([principal], "new", ["td1"]) == expanded
