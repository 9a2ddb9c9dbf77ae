"""SPIFFE identities: which strings are one, and that what is one comes back as it was."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.spiffe import MAX_ID_LENGTH, InvalidSpiffeId, SpiffeId, check_trust_domain

segments = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).filter(lambda text: text not in (".", ".."))
trust_domains = st.from_regex(r"[a-z0-9._-]{1,40}", fullmatch=True)


@given(trust_domains, st.lists(segments, min_size=1, max_size=6))
def test_what_is_written_is_read_back(trust_domain: str, path: list[str]) -> None:
    identity = SpiffeId(trust_domain, tuple(path))

    assert str(identity) == f"spiffe://{trust_domain}/{'/'.join(path)}"
    assert SpiffeId.parse(str(identity)) == identity


@given(st.one_of(st.text(), st.text().map("spiffe://{}".format), st.text().map("spiffe://a/{}".format)))
@example("spiffe://a/b\n")
@example("spiffe://a\n/b")
@example("spiffe://a/٣")
@example("spiffe://a/\ud800")
def test_any_text_is_an_id_or_is_refused_in_one_line(text: str) -> None:
    try:
        identity = SpiffeId.parse(text)
    except InvalidSpiffeId as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000
    else:
        assert str(identity) == text
        assert text.isascii()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "does not start with spiffe://"),
        ("https://example.org/web", "does not start with spiffe://"),
        ("SPIFFE://example.org/web", "does not start with spiffe://"),
        ("spiffe:/example.org/web", "does not start with spiffe://"),
        ("spiffe://", "is no trust domain"),
        ("spiffe:///web", "is no trust domain"),
        ("spiffe://Example.org/web", "is no trust domain"),
        ("spiffe://example.org:443/web", "is no trust domain"),
        ("spiffe://user@example.org/web", "is no trust domain"),
        ("spiffe://example.org?x/web", "is no trust domain"),
        ("spiffe://" + "x" * 256 + "/web", "is no trust domain"),
        ("spiffe://example.org", "has a path"),
        ("spiffe://example.org/", "is no path segment"),
        ("spiffe://example.org/web/", "is no path segment"),
        ("spiffe://example.org//web", "is no path segment"),
        ("spiffe://example.org/./web", "is no path segment"),
        ("spiffe://example.org/../web", "is no path segment"),
        ("spiffe://example.org/we%62", "is no path segment"),
        ("spiffe://example.org/web?x=1", "is no path segment"),
        ("spiffe://example.org/web#x", "is no path segment"),
        ("spiffe://example.org/wéb", "is no path segment"),
        ("spiffe://example.org/web\n", "is no path segment"),
        ("spiffe://example.org/web\0", "is no path segment"),
    ],
)
def test_what_is_no_id_is_refused_with_the_rule_that_it_breaks(text: str, fault: str) -> None:
    with pytest.raises(InvalidSpiffeId, match=fault):
        SpiffeId.parse(text)


def test_an_id_has_at_most_2048_bytes() -> None:
    longest = "spiffe://a/" + "x" * (MAX_ID_LENGTH - len("spiffe://a/"))

    assert str(SpiffeId.parse(longest)) == longest
    with pytest.raises(InvalidSpiffeId, match="at most 2048 bytes; this one has 2049"):
        SpiffeId.parse(longest + "x")


def test_dots_inside_a_segment_are_part_of_its_name() -> None:
    assert SpiffeId.parse("spiffe://a/...").segments == ("...",)
    assert SpiffeId.parse("spiffe://a/.b./c").segments == (".b.", "c")


def test_ids_that_differ_in_the_case_of_the_path_are_different() -> None:
    assert SpiffeId.parse("spiffe://a/Web") != SpiffeId.parse("spiffe://a/web")


def test_a_service_account_s_id_has_istio_s_form_and_gives_its_namespace_back() -> None:
    identity = SpiffeId.for_service_account("shop", "web", "cluster.local")

    assert str(identity) == "spiffe://cluster.local/ns/shop/sa/web"
    assert identity.namespace == "shop"


@pytest.mark.parametrize(
    "uri", ["spiffe://a/web", "spiffe://a/ns/shop", "spiffe://a/ns/shop/sa/web/more", "spiffe://a/NS/shop/SA/web"]
)
def test_an_id_of_another_form_has_no_namespace(uri: str) -> None:
    assert SpiffeId.parse(uri).namespace is None


@pytest.mark.parametrize(("namespace", "account"), [("shop/sa/admin", "web"), ("..", "web"), ("shop", "")])
def test_a_service_account_cannot_be_named_so_that_it_is_another(namespace: str, account: str) -> None:
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.for_service_account(namespace, account, "cluster.local")


def test_an_id_cannot_be_changed_into_another() -> None:
    identity = SpiffeId.parse("spiffe://a/web")
    with pytest.raises(dataclasses.FrozenInstanceError):
        identity.trust_domain = "b"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["a", "cluster.local", "a_b-c.9", "x" * 255])
def test_a_trust_domain_is_given_back(name: str) -> None:
    assert check_trust_domain(name) == name


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "a:1", "ä", "a\n", "x" * 256])
def test_what_is_no_trust_domain_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpiffeId, match="is no trust domain"):
        check_trust_domain(name)


def test_the_authority_has_an_identity_of_its_own_in_each_trust_domain() -> None:
    assert str(SpiffeId.of_authority("prod.example")) == "spiffe://prod.example/ns/qbitel-system/sa/qbitel-certmgr"
