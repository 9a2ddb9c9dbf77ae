"""Which way a destination has, and what a new document or new addresses change."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry

from proxy.config import Endpoint
from proxy.peers.entries import Balancing, PeerEndpoint, PeerEntry, mesh_entry
from proxy.peers.metrics import PeerMetrics
from proxy.peers.router import Router
from proxy.peers.table import network_of
from proxy.peers.via import Via
from proxy.routes import Mode, PortRange
from tests.proxy.peers.groups import Clock

API = frozenset({"spiffe://cluster.local/ns/default/sa/api"})


def entry(name, cidr=None, mode=Mode.REQUIRE, **more) -> PeerEntry:
    networks = (network_of(cidr),) if cidr else ()
    return PeerEntry(name=name, mode=mode, networks=networks, **more)


def router_of(*entries) -> Router:
    return Router(entries, PeerMetrics(CollectorRegistry()), now=Clock(), random=lambda: 0.0)


def mode_of(router, host, port=80):
    return router.way(Endpoint(host, port)).mode


def test_a_destination_that_nothing_is_said_about_passes_as_plain_tcp():
    way = router_of().way(Endpoint("10.0.0.1", 80))
    assert (way.mode, way.entry, way.group, way.notes) == (Mode.OFF, None, None, None)


def test_the_short_form_is_dialled_where_the_application_dials():
    way = router_of(mesh_entry(network_of("10.0.0.0/8"))).way(Endpoint("10.0.0.1", 80))
    assert way.mode is Mode.REQUIRE
    assert way.towards(None) == (Via(Endpoint("10.0.0.1", 80)), Endpoint("10.0.0.1", 80))
    assert way.notes is None


def test_a_way_is_thought_about_once_and_again_after_a_new_document():
    router = router_of(entry("a", "10.0.0.0/8"))
    way = router.way(Endpoint("10.0.0.1", 80))
    assert router.way(Endpoint("10.0.0.1", 80)) is way
    router.take_up([entry("a", "10.0.0.0/8", Mode.OFF)])
    assert mode_of(router, "10.0.0.1") is Mode.OFF


def test_destinations_that_are_scanned_do_not_make_it_grow():
    router = router_of()
    for port in range(10_000):
        router.way(Endpoint("10.0.0.1", port))
    assert len(router._ways) <= 4096


def test_a_tunnel_port_is_dialled_at_the_host_of_the_destination():
    way = router_of(entry("a", "10.0.0.0/8", tunnel_port=15008, identities=API)).way(Endpoint("10.0.0.1", 80))
    assert way.towards(None) == (
        Via(Endpoint("10.0.0.1", 15008), API, None, by_stream=True),
        Endpoint("10.0.0.1", 80),
    )


def test_endpoints_stand_for_the_destination_and_keep_its_port_unless_they_have_one():
    endpoints = (PeerEndpoint("10.1.0.1"), PeerEndpoint("10.1.0.2", 8080))
    router = router_of(
        entry("a", "10.0.0.1/32", endpoints=endpoints, balancing=Balancing.ROUND_ROBIN, tunnel_port=15008)
    )
    way = router.way(Endpoint("10.0.0.1", 80))
    assert way.is_balanced
    found = {way.towards(way.group.choose()) for _ in range(2)}
    assert found == {
        (Via(Endpoint("10.1.0.1", 15008), by_stream=True), Endpoint("10.1.0.1", 80)),
        (Via(Endpoint("10.1.0.2", 15008), by_stream=True), Endpoint("10.1.0.2", 8080)),
    }


def test_what_belongs_to_one_entry_is_counted_together():
    router = router_of(entry("a", "10.0.0.0/8", max_connections=1))
    one, other = router.way(Endpoint("10.0.0.1", 80)), router.way(Endpoint("10.0.0.2", 80))
    assert one.group is other.group is not None
    assert not one.is_balanced


def test_a_new_document_changes_a_group_and_forgets_one_that_is_gone():
    endpoints = (PeerEndpoint("10.1.0.1"),)
    router = router_of(entry("a", "10.0.0.1/32", endpoints=endpoints, balancing=Balancing.ROUND_ROBIN))
    group = router.way(Endpoint("10.0.0.1", 80)).group
    member = group.choose()
    more = (*endpoints, PeerEndpoint("10.1.0.2"))
    router.take_up([entry("a", "10.0.0.1/32", endpoints=more, balancing=Balancing.ROUND_ROBIN)])
    way = router.way(Endpoint("10.0.0.1", 80))
    assert way.group is group
    assert {group.choose().address for _ in range(2)} == {"10.1.0.1", "10.1.0.2"}
    router.take_up([entry("a", "10.0.0.1/32", endpoints=more[1:], balancing=Balancing.ROUND_ROBIN)])
    # Chosen under the document before: then where the application dialled, under the same rules.
    assert router.way(Endpoint("10.0.0.1", 80)).towards(member)[1] == Endpoint("10.0.0.1", 80)
    router.take_up([])
    assert router.way(Endpoint("10.0.0.1", 80)).group is None


def test_a_name_is_its_addresses():
    router = router_of(entry("orders", hosts=("orders.shop.svc",)))
    assert router.names == {"orders.shop.svc"}
    assert mode_of(router, "10.0.0.7") is Mode.OFF
    router.take_addresses({"orders.shop.svc": ("10.0.0.7", "fd00::7")})
    assert mode_of(router, "10.0.0.7") is mode_of(router, "fd00::7") is Mode.REQUIRE
    assert mode_of(router, "::ffff:10.0.0.7") is Mode.REQUIRE
    router.take_addresses({"orders.shop.svc": ()})
    assert mode_of(router, "10.0.0.7") is Mode.OFF


@pytest.mark.parametrize(
    ("by_name", "by_address", "expected"),
    [
        (Mode.OFF, Mode.REQUIRE, Mode.REQUIRE),  # whoever answers for a name does not make plaintext of the mesh
        (Mode.OFF, Mode.PREFER, Mode.PREFER),
        (Mode.REQUIRE, Mode.OFF, Mode.REQUIRE),
        (Mode.PREFER, Mode.OFF, Mode.PREFER),
    ],
)
def test_a_name_only_makes_stricter(by_name, by_address, expected):
    router = router_of(entry("name", mode=by_name, hosts=("a",)), entry("address", "10.0.0.0/8", by_address))
    router.take_addresses({"a": ("10.0.0.7",)})
    assert mode_of(router, "10.0.0.7") is expected


def test_of_the_same_mode_the_name_says_how_it_is_reached():
    router = router_of(entry("name", hosts=("a",), identities=API), entry("address", "10.0.0.0/8"))
    router.take_addresses({"a": ("10.0.0.7",)})
    assert router.way(Endpoint("10.0.0.7", 80)).via.identities == API


def test_of_two_names_at_one_address_the_stricter_decides_whatever_the_order():
    for order in (("a", "b"), ("b", "a")):
        router = router_of(entry("one", mode=Mode.PREFER, hosts=("a",)), entry("two", hosts=("b",)))
        router.take_addresses(dict.fromkeys(order, ("10.0.0.7",)))
        assert router.way(Endpoint("10.0.0.7", 80)).name == "two"


def test_a_name_that_is_balanced_is_reached_at_any_of_its_addresses():
    router = router_of(entry("a", hosts=("a",), balancing=Balancing.ROUND_ROBIN))
    router.take_addresses({"a": ("10.0.0.7", "10.0.0.8")})
    way = router.way(Endpoint("10.0.0.7", 80))
    assert {way.towards(way.group.choose())[1].host for _ in range(2)} == {"10.0.0.7", "10.0.0.8"}
    router.take_addresses({"a": ("10.0.0.8", "10.0.0.9")})
    again = router.way(Endpoint("10.0.0.8", 80))
    assert again.group is way.group
    assert {again.towards(again.group.choose())[1].host for _ in range(2)} == {"10.0.0.8", "10.0.0.9"}


def test_a_listeners_own_target_requires_the_mesh_whatever_is_said_of_it():
    router = router_of(entry("off", "10.0.0.0/8", Mode.OFF), entry("name", mode=Mode.PREFER, hosts=("*.svc",)))
    for host in ("10.0.0.1", "a.svc", "other.example"):
        assert router.way_to_target(Endpoint(host, 80)).mode is Mode.REQUIRE
    assert router.way_to_target(Endpoint("a.svc", 80)).name == "name"
    assert router.way_to_target(Endpoint("other.example", 80)).entry is None


def test_a_target_by_name_is_dialled_by_its_name_while_no_address_is_known():
    router = router_of(entry("a", hosts=("a",), balancing=Balancing.ROUND_ROBIN))
    way = router.way_to_target(Endpoint("a", 80))
    assert not way.is_balanced
    assert way.via.address == Endpoint("a", 80)
    router.take_addresses({"a": ("10.0.0.7",)})
    assert router.way_to_target(Endpoint("a", 80)).is_balanced


def test_an_operator_is_shown_entries_endpoints_addresses_and_who_is_plaintext():
    router = router_of(
        entry("a", "10.0.0.1/32", endpoints=(PeerEndpoint("10.1.0.1", 80),), balancing=Balancing.ROUND_ROBIN),
        entry("b", mode=Mode.PREFER, hosts=("b.svc",), ports=(PortRange(80, 89),), identities=API),
    )
    router.take_addresses({"b.svc": ("10.0.0.7",)})
    group = router.way(Endpoint("10.0.0.1", 80)).group
    group.enter()
    member = group.choose()
    member.started()
    group.succeeded(member, 0.25)
    router.memory.spoke_plaintext(Endpoint("10.0.0.7", 80), "plain_answer", router.now())
    shown = json.loads(json.dumps(router.describe()))
    first, second = shown["entries"]
    assert (first["name"], first["mode"], first["cidrs"], first["ports"]) == ("a", "require", ["10.0.0.1/32"], [])
    assert (second["hosts"], second["ports"], second["identities"]) == (["b.svc"], ["80-89"], sorted(API))
    assert shown["groups"] == [
        {
            "peer": "a",
            "host": "",
            "connections": 1,
            "pending": 0,
            "refused": 0,
            "endpoints": [
                {"address": "10.1.0.1:80", "weight": 1, "connections": 1, "latency_ms": 250.0, "left_out": False}
            ],
        }
    ]
    assert shown["addresses"] == {"b.svc": ["10.0.0.7"]}
    assert shown["plaintext"][0]["address"] == "10.0.0.7:80"


def test_a_large_document_is_shown_in_part():
    router = router_of(*(entry(f"e{number}", f"10.{number // 256}.{number % 256}.0/24") for number in range(1500)))
    shown = router.describe()
    assert (len(shown["entries"]), shown["more_entries"]) == (1000, 500)
