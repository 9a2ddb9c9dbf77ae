"""What a value of a policy matches."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.matching import (
    Blocks,
    Identity,
    Namespaces,
    Paths,
    RequestPrincipals,
    Texts,
    account_of,
    address,
    address_block,
    claim_texts,
    is_account_within,
    origin_form,
    plain_path,
    template_ends,
    with_aliases,
)


@pytest.mark.parametrize(
    ("value", "text", "matches"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("a", "ab", False),
        ("*", "a", True),
        ("*", "", False),
        ("a*", "a", True),
        ("a*", "ab", True),
        ("a*", "ba", False),
        ("*a", "a", True),
        ("*a", "ba", True),
        ("*a", "ab", False),
        ("a*b", "a*b", True),
        ("a*b", "axb", False),
        ("**", "a*", True),
        ("**", "a", False),
        ("*a*", "xa*", True),
        ("*a*", "xax", False),
    ],
)
def test_a_star_means_something_at_one_end_alone(value: str, text: str, matches: bool) -> None:
    assert Texts.of([value]).match(text) is matches


def test_presence_may_include_the_empty_text() -> None:
    assert Texts.of(["*"], empty=True).match("")
    assert not Texts.of(["a"], empty=True).match("")


@given(st.lists(st.text(alphabet="ab*", min_size=1, max_size=4), max_size=5), st.text(alphabet="ab*", max_size=5))
def test_several_values_match_what_one_of_them_does(values: list[str], text: str) -> None:
    assert Texts.of(values).match(text) is any(Texts.of([value]).match(text) for value in values)


# Addresses


@pytest.mark.parametrize(
    ("value", "network"),
    [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/16", "10.1.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1", "::1/128"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::/0", "::/0"),
    ],
)
def test_blocks_of_addresses(value: str, network: str) -> None:
    assert str(address_block(value)) == network


@pytest.mark.parametrize(
    "value",
    [
        *("", "1", "10.1.2", "10.1.2.3.4", "10.1.2.256", "010.1.2.3", "10.1.2.3/33", "10.1.2.3/", "/8"),
        *("10.0.0.0/255.0.0.0", "::1/129", "fe80::1%eth0", "10.1.2.3 ", "10.1.2.3\n", "10.*", "*", "example.com"),
        *("1::2::3", "10.0.0.0/ 8", "10.0.0.0/-1"),
    ],
)
def test_what_is_no_block_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is no address and no block of addresses"):
        address_block(value)


@given(st.text(alphabet="0123456789abcdef:./%", max_size=50))
@example("1.2.3.4/1e1")
def test_any_text_is_a_block_or_refused(value: str) -> None:
    try:
        found = address_block(value)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert found.prefixlen <= found.max_prefixlen


@given(
    st.lists(
        st.ip_addresses().flatmap(lambda each: st.integers(0, each.max_prefixlen).map(lambda bits: f"{each}/{bits}")),
        max_size=5,
    ),
    st.ip_addresses(),
)
def test_an_address_is_found_in_blocks_as_the_standard_library_finds_it(values: list[str], found: object) -> None:
    plain = address(str(found))
    assert plain is not None
    networks = [address_block(value) for value in values]
    version, number = plain
    normal = ipaddress.ip_address(number) if version == 4 else ipaddress.IPv6Address(number)

    assert Blocks.of(values).match(plain) is any(normal in network for network in networks)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("10.0.0.1", (4, 0x0A000001)),
        ("::ffff:10.0.0.1", (4, 0x0A000001)),
        ("::1", (6, 1)),
        ("fe80::1%eth0", (6, 0xFE80 << 112 | 1)),
        ("", None),
        (None, None),
        ("localhost", None),
        ("10.0.0", None),
        ("/run/socket", None),
    ],
)
def test_what_is_no_address_is_not_known(text: str | None, known: tuple[int, int] | None) -> None:
    assert address(text) == known


# Identities


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


# Paths


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


# Tokens


@pytest.mark.parametrize(
    ("value", "issuer", "subject", "matches"),
    [
        ("i/s", "i", "s", True),
        ("i/s", "i", "x", False),
        ("https://i/x/s", "https://i/x", "s", True),
        ("*", "i", "s", True),
        ("*", "i", "", False),
        ("*", "", "s", False),
        ("i/*", "i", "s", True),
        ("i/*", "x", "s", False),
        ("i/s*", "i", "st", True),
        ("*/s", "i", "s", True),
        ("*/s", "", "s", False),
        ("*i/s", "xi", "s", True),
        ("*s", "whoever", "xs", True),
        ("i*", "ix", "anyone", True),
        ("i", "i", "s", False),
        ("*/*", "i", "*", True),
        ("*/*", "i", "s", False),
    ],
)
def test_principals_of_tokens(value: str, issuer: str, subject: str, matches: bool) -> None:
    assert RequestPrincipals.of([value]).match({"iss": issuer, "sub": subject}) is matches


@pytest.mark.parametrize("claims", [{}, {"iss": "i"}, {"sub": "s"}, {"iss": 1, "sub": "s"}, {"iss": ["i"], "sub": "s"}])
def test_a_token_without_issuer_or_subject_is_of_nobody(claims: dict[str, object]) -> None:
    assert not RequestPrincipals.of(["*", "i/*", "*s"]).match(claims)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("a",), ("x",)),
        (("l",), ("x", "y")),
        (("m", "n"), ("z",)),
        (("m",), ()),
        (("n",), ()),
        (("b",), ()),
        (("a", "x"), ()),
        (("none",), ()),
        (("scope",), ("read", "write")),
        (("m", "scope"), ("read write",)),
    ],
)
def test_the_texts_of_a_claim(path: tuple[str, ...], found: tuple[str, ...]) -> None:
    claims = {
        "a": "x",
        "l": ["x", 1, "y", None],
        "m": {"n": "z", "scope": "read write"},
        "n": 7,
        "b": True,
        "scope": "read  write ",
    }

    assert claim_texts(claims, path) == found
