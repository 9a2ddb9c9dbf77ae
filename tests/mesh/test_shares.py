"""What of a set is about one workload."""

from __future__ import annotations

import pytest

from mesh.metadata import Metadata
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from mesh.shares import Share, Shares
from mesh.traffic import DestinationRule, TrafficPolicy, host_matches
from tests.mesh.written import allow, mode, resource, resources, rule, strict

WEB = Workload("shop", {"app": "web"}, "web", "web")
SERVICE = resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: http}]}")
DEPLOYMENT = resource(
    "Deployment",
    "shop/web",
    "{template: {metadata: {labels: {app: web}}, spec: {containers: [{ports: [{name: http, containerPort: 8080}]}]}}}",
)
POOL = "{connectionPool: {tcp: {maxConnections: 7}}}"


def share(found: ResourceSet, workload: Workload = WEB) -> Share:
    return Shares(found).of(workload)


def names(one: Share) -> list[str]:
    mine = one.resources
    return [
        *(each.metadata.key for each in mine.peer_authentications),
        *(each.metadata.key for each in mine.authorization_policies),
        *(each.metadata.key for each in mine.destination_rules),
    ]


def test_a_share_has_what_is_about_the_workload_and_nothing_else() -> None:
    found = resources(
        strict("shop/default"),
        strict("other/default"),
        mode("istio-system/default", "PERMISSIVE"),
        allow("shop/web", "[{}]", "{app: web}"),
        allow("shop/db", "[{}]", "{app: db}"),
        allow("other/web", "[{}]", "{app: web}"),
        allow("istio-system/all", "[{}]"),
        rule("shop/web", "web", POOL),
        rule("shop/db", "db", POOL),
        rule("other/mine", "web.shop.svc.cluster.local", POOL),
    )

    assert sorted(names(share(found))) == [
        "istio-system/all",
        "istio-system/default",
        "other/mine",
        "shop/default",
        "shop/web",
        "shop/web",
    ]
    assert sorted(names(share(found, Workload("new", {}, "a")))) == ["istio-system/all", "istio-system/default"]


def test_two_sets_in_which_the_same_is_said_of_a_workload_have_equal_shares() -> None:
    mine = (strict(), allow("shop/a", "[{}]"), allow("shop/b", "[{}]"), rule("shop/web", "web", POOL))

    assert share(resources(*mine)) == share(resources(*reversed(mine), allow("other/c", "[{}]")))
    assert share(resources(*mine)) != share(resources(*mine, allow("shop/c", "[{}]")))


def test_the_oldest_comes_first() -> None:
    young = resource("AuthorizationPolicy", "shop/a", "{}", created="2026-02-01T00:00:00Z")
    old = resource("AuthorizationPolicy", "shop/b", "{}", created="2026-01-01T00:00:00Z")

    assert names(share(resources(young, old))) == ["shop/b", "shop/a"]


@pytest.mark.parametrize(
    ("host", "covers"),
    [
        ("web", True),
        ("WEB.shop.svc.cluster.local", True),
        ("*.shop.svc.cluster.local", True),
        ("*", True),
        ("*.local", True),
        ("db", False),
        ("*.other.svc.cluster.local", False),
        ("*.web.shop.svc.cluster.local", False),
        ("*web.shop.svc.cluster.local", True),
        ("*.a.much.longer.name.web.shop.svc.cluster.local", False),
    ],
)
def test_a_rule_is_found_by_its_host_as_if_each_had_been_looked_at(host: str, covers: bool) -> None:
    one = DestinationRule(Metadata("DestinationRule", "shop", "one"), host, TrafficPolicy())

    assert share(ResourceSet(destination_rules=(one,))).resources.destination_rules == ((one,) if covers else ())
    assert host_matches(one.full_host, "web.shop.svc.cluster.local") == covers


def test_the_place_is_that_of_the_service_in_front() -> None:
    place = share(resources(SERVICE, DEPLOYMENT)).place

    assert (str(place.service), place.port_on_pods(80)) == ("shop/web", 8080)
    assert place.workloads == (WEB,)


def test_without_a_service_the_label_app_names_it_and_without_that_nothing() -> None:
    assert str(share(resources(), Workload("shop", {"app": "db"}, "")).place.service) == "shop/db"
    assert share(resources(SERVICE), Workload("shop", {"tier": "db"}, "")).place.service is None
