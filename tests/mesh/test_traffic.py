"""Which DestinationRule holds for a client, a host and a port."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mesh.metadata import Metadata
from mesh.resources import ResourceSet
from mesh.selectors import Selector, Workload
from mesh.traffic import (
    ClientTls,
    DestinationRule,
    DestinationRules,
    Subset,
    TlsMode,
    TrafficPolicy,
    destination_rule,
    full_host,
    host_matches,
    rivals,
    service_namespace,
    wildcards_over,
)

CLIENT = Workload("shop", {"app": "web"}, "web")
HOST = "db.data.svc.cluster.local"


def rule(name: str, host: str = HOST, namespace: str = "shop", created: str = "~", **more: Any) -> DestinationRule:
    return DestinationRule(Metadata("DestinationRule", namespace, name, created=created), host, TrafficPolicy(), **more)


def chosen(*rules: DestinationRule, client: Workload = CLIENT) -> str | None:
    found = destination_rule(ResourceSet(destination_rules=rules), HOST, client, "data")
    return None if found is None else found.metadata.name


@pytest.mark.parametrize(
    ("host", "namespace", "full"),
    [
        ("web", "shop", "web.shop.svc.cluster.local"),
        ("web.other", "shop", "web.other"),
        ("web.other.svc.cluster.local", "shop", "web.other.svc.cluster.local"),
        ("*.example.com", "shop", "*.example.com"),
        ("*", "shop", "*"),
    ],
)
def test_a_short_name_is_of_the_rule_s_own_namespace(host: str, namespace: str, full: str) -> None:
    assert full_host(host, namespace) == full


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "A.B", True),
        ("a.b", "x.a.b", False),
        ("*.b", "a.b", True),
        ("*.b", "x.a.b", True),
        ("*.b", "b", False),
        ("*", "anything", True),
    ],
)
def test_hosts_match_by_their_ends(pattern: str, host: str, matches: bool) -> None:
    assert host_matches(pattern, host) is matches


def test_the_client_s_namespace_comes_before_the_service_s_and_that_before_the_root() -> None:
    mine, its, root = rule("mine", "*"), rule("its", namespace="data"), rule("root", namespace="istio-system")

    assert chosen(root, its, mine) == "mine"
    assert chosen(root, its) == "its"
    assert chosen(root) == "root"
    assert chosen(rule("elsewhere", namespace="other")) is None
    assert chosen() is None


def test_a_client_in_the_root_namespace_takes_the_service_s_rule_before_its_own() -> None:
    gateway = Workload("istio-system", {}, "gateway")

    assert chosen(rule("root", namespace="istio-system"), rule("its", namespace="data"), client=gateway) == "its"


def test_within_a_namespace_the_narrowest_host_is_taken() -> None:
    rules = [rule("all", "*"), rule("namespace", "*.data.svc.cluster.local"), rule("local", "*.local"), rule("exact")]

    assert [chosen(*rules[:count]) for count in (1, 2, 3, 4)] == ["all", "namespace", "namespace", "exact"]


def test_a_short_name_in_the_service_s_namespace_is_the_service() -> None:
    assert chosen(rule("short", "db", namespace="data")) == "short"
    assert chosen(rule("short", "db", namespace="shop")) is None


def test_of_two_for_one_host_the_one_that_selects_the_client_is_taken_and_then_the_oldest() -> None:
    old, young = rule("old", created="2025"), rule("a", created="2026")
    selecting = rule("selecting", created="2026", selector=Selector({"app": "web"}))
    other = rule("other", created="2024", selector=Selector({"app": "other"}))

    assert chosen(young, old) == "old"
    assert chosen(young, old, selecting, other) == "selecting"


def test_rules_of_one_scope_are_one_rule() -> None:
    """As Istio merges them: subsets are added by their names, the traffic policy is the first that there is."""
    plain, mutual = TrafficPolicy(tls=ClientTls(TlsMode.DISABLE)), TrafficPolicy(tls=ClientTls(TlsMode.ISTIO_MUTUAL))
    oldest = rule("oldest", created="1", subsets=(Subset("v1", {"v": "1"}),))
    second = replace(rule("second", HOST.upper(), created="2"), traffic_policy=plain)
    third = replace(
        rule("third", created="3", subsets=(Subset("v1", {"v": "x"}), Subset("v2", {"v": "2"}))), traffic_policy=mutual
    )
    elsewhere = rule("elsewhere", created="0", export_to=("shop",))
    found = destination_rule(ResourceSet(destination_rules=(third, second, oldest)), HOST, CLIENT, "data")

    assert found is not None
    assert found.metadata.name == "oldest"
    assert found.traffic_policy == plain
    assert found.subsets == (Subset("v1", {"v": "1"}), Subset("v2", {"v": "2"}))
    assert list(rivals([third, elsewhere, second, oldest])) == [(oldest, second), (oldest, third)]


@pytest.mark.parametrize(
    ("export_to", "seen"),
    [((), True), (("*",), True), ((".",), False), (("shop",), True), (("other",), False), (("other", "shop"), True)],
)
def test_a_rule_of_another_namespace_is_seen_where_it_is_exported(export_to: tuple[str, ...], seen: bool) -> None:
    assert chosen(rule("its", namespace="data", export_to=export_to)) == ("its" if seen else None)
    assert rule("mine", export_to=(".",)).is_seen_by("shop")


def test_the_settings_of_a_port_take_the_place_of_the_others() -> None:
    whole = TrafficPolicy(
        tls=ClientTls(TlsMode.ISTIO_MUTUAL), ports={5432: TrafficPolicy(tls=ClientTls(TlsMode.DISABLE))}
    )

    assert whole.at(80) is whole
    at = whole.at(5432)
    assert at.tls is not None
    assert at.tls.mode is TlsMode.DISABLE


def test_a_private_key_s_place_is_not_shown() -> None:
    assert "key.pem" not in repr(ClientTls(TlsMode.MUTUAL, private_key="/etc/key.pem"))


@pytest.mark.parametrize(
    ("host", "namespace"),
    [
        ("web.shop.svc.cluster.local", "shop"),
        ("WEB.Shop.svc.cluster.local", "shop"),
        ("web.shop.svc", ""),
        ("a.web.shop.svc.cluster.local", ""),
        ("shop.svc.cluster.local", ""),
        (".shop.svc.cluster.local", ""),
        ("api.example.com", ""),
        ("", ""),
    ],
)
def test_whose_service_a_host_is(host: str, namespace: str) -> None:
    assert service_namespace(host) == namespace


def test_the_wildcards_over_a_host_are_those_that_match_it_the_narrowest_first() -> None:
    assert list(wildcards_over("A.b.c")) == ["*.b.c", "*.c", "*"]
    assert list(wildcards_over("a")) == ["*"]
    assert all(host_matches(pattern, "a.b.c") for pattern in wildcards_over("a.b.c"))


def test_many_hosts_under_one_wildcard_have_the_very_same_rule() -> None:
    rules = DestinationRules([rule("b", "*.svc.cluster.local"), rule("a", "*.svc.cluster.local")], CLIENT, "root")
    found = {id(rules.of(f"s{number}.data.svc.cluster.local", "data")) for number in range(3)}
    assert len(found) == 1
    assert rules.of("api.example.com", "") is None
