"""What is known of a connection, as rules look at it."""

from __future__ import annotations

import dataclasses

import pytest

from mesh.facts import Facts, HttpFacts, View


def test_headers_are_found_in_any_case_and_paths_are_plain() -> None:
    facts = HttpFacts("GET", "/a/../b?c", "h", {"X-Token": "v"})

    assert facts.headers == {"x-token": "v"}
    assert facts.path == "/b"
    assert dataclasses.replace(facts, method="PUT").path == "/b"


def test_fields_of_one_name_in_several_spellings_are_one_field() -> None:
    assert HttpFacts("GET", "/", headers={"X-A": "1", "x-a": "2"}).headers == {"x-a": "1,2"}


def test_a_target_with_a_host_is_about_that_host_whatever_the_header_says() -> None:
    facts = HttpFacts("GET", "http://web.shop:8080/x/../admin?y", "other")

    assert (facts.host, facts.path) == ("web.shop:8080", "/admin")
    assert HttpFacts("GET", "/a", "other").host == "other"


def test_a_host_that_was_not_sent_is_not_there() -> None:
    view = View(Facts(80, http=HttpFacts("GET", "/")))

    assert view.header("host") is None
    assert view.header(":authority") is None


def test_facts_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Facts(80).principal = "cluster.local/ns/a/sa/b"  # type: ignore[misc]


def test_a_principal_with_its_scheme_is_a_slip_of_ours_and_no_name() -> None:
    with pytest.raises(ValueError, match="a principal has no spiffe:// in front"):
        Facts(80, "spiffe://cluster.local/ns/a/sa/b")


def test_a_view_of_a_peer_without_identity_is_of_nobody() -> None:
    for facts in (Facts(80), Facts(80, principal="")):
        view = View(facts)
        assert view.principal == ""
        assert (view.identity.namespace, view.identity.account, view.identity.trust_domain) == ("", "", "")


def test_a_view_takes_principals_and_addresses_apart() -> None:
    view = View(Facts(80, "td/ns/shop/sa/web", "10.0.0.1", "::ffff:10.0.0.2"))

    assert (view.identity.trust_domain, view.identity.namespace, view.identity.account) == ("td", "shop", "shop/web")
    assert view.source_ip == (4, 0x0A000001)
    assert view.destination_ip == (4, 0x0A000002)
    assert view.port == 80


def test_the_client_s_address_is_the_connection_s_unless_a_proxy_named_another() -> None:
    assert View(Facts(80, source_ip="10.0.0.1")).remote_ip == (4, 0x0A000001)
    assert View(Facts(80, source_ip="10.0.0.1", remote_ip="10.0.0.2")).remote_ip == (4, 0x0A000002)


@pytest.mark.parametrize("source", [None, "", "unix", "1.2.3"])
def test_what_is_no_address_is_not_known(source: str | None) -> None:
    assert View(Facts(80, source_ip=source)).source_ip is None
    assert View(Facts(80, source_ip=source)).remote_ip is None


@pytest.mark.parametrize(
    ("name", "value"),
    [(":method", "GET"), (":path", "/x"), (":authority", "h:1"), ("host", "h:1"), ("x-a", "1"), ("x-b", None)],
)
def test_the_parts_of_a_request_line_are_headers_too(name: str, value: str | None) -> None:
    view = View(Facts(80, http=HttpFacts("GET", "/x?y", "h:1", {"X-A": "1", "Host": "other"})))

    assert view.header(name) == value
