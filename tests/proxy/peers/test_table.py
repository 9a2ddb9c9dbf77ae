"""Which entry a destination belongs to: the most specific one, in the order that the documentation gives."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.peers.entries import PeerEntry, mesh_entry
from proxy.peers.table import PeerTable, network_of
from proxy.routes import Mode, PortRange


def entry(name: str, *cidrs: str, hosts: tuple[str, ...] = (), ports: tuple[PortRange, ...] | None = None) -> PeerEntry:
    more = {} if ports is None else {"ports": ports}
    networks = tuple(network_of(cidr) for cidr in cidrs)
    return PeerEntry(name=name, mode=Mode.REQUIRE, networks=networks, hosts=hosts, **more)


TABLE = PeerTable(
    [
        entry("all", "10.0.0.0/8", "fd00::/8"),
        entry("rack", "10.1.0.0/16"),
        entry("web of rack", "10.1.0.0/16", ports=(PortRange(80, 80), PortRange(8000, 8999))),
        entry("odd of rack", "10.1.0.0/16", ports=(PortRange(8100, 8199),)),
        entry("one", "10.1.2.3", ports=(PortRange(443, 443),)),
        entry("shop", hosts=("*.shop.svc", "shop.svc")),
        entry("orders", hosts=("orders.shop.svc",), ports=(PortRange(80, 80),)),
        entry("v2", hosts=("*.v2.shop.svc",)),
    ]
)


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("10.9.9.9", 1, "all"),
        ("fd12::1", 1, "all"),
        ("10.1.9.9", 1, "rack"),
        ("10.1.9.9", 80, "web of rack"),
        ("10.1.9.9", 8099, "web of rack"),
        ("10.1.9.9", 8100, "odd of rack"),  # the narrower range
        ("10.1.2.3", 443, "one"),
        ("10.1.2.3", 80, "web of rack"),  # the address says nothing of this port: the next larger network does
        ("::ffff:10.1.2.3", 443, "one"),
        ("11.0.0.1", 80, None),
        ("fe80::1%eth0", 80, None),
    ],
)
def test_the_longest_prefix_decides_and_then_the_narrowest_ports(address, port, expected):
    found = TABLE.by_address(address, port)
    assert (found.name if found else None) == expected


@pytest.mark.parametrize(
    ("name", "port", "expected"),
    [
        ("orders.shop.svc", 80, "orders"),
        ("Orders.Shop.Svc.", 80, "orders"),
        ("orders.shop.svc", 81, "shop"),  # the name says nothing of this port: the suffix does
        ("a.v2.shop.svc", 1, "v2"),
        ("v2.shop.svc", 1, "shop"),  # a suffix has something before it
        ("shop.svc", 1, "shop"),
        ("otherwise.svc", 1, None),
        ("notshop.svc", 1, None),
    ],
)
def test_the_exact_name_decides_and_then_the_longest_suffix(name, port, expected):
    found = TABLE.by_name(name, port)
    assert (found.name if found else None) == expected


def test_the_names_to_be_asked_for_are_the_exact_ones():
    assert TABLE.names == {"shop.svc", "orders.shop.svc"}


def test_nothing_is_about_anything_in_an_empty_table():
    assert PeerTable(()).by_address("10.0.0.1", 80) is None
    assert PeerTable(()).by_name("a", 80) is None


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        (entry("a", "10.0.0.0/8"), entry("b", "10.0.0.0/8"), "10.0.0.0/8, every port"),
        (
            entry("a", "fd00::/8", ports=(PortRange(80, 89),)),
            entry("b", "fd00::/8", ports=(PortRange(85, 94),)),
            "fd00::/8, ports 80-89",
        ),
        (
            entry("a", hosts=("x",), ports=(PortRange(1, 1),)),
            entry("b", hosts=("x",), ports=(PortRange(1, 1),)),
            "x, port 1",
        ),
    ],
)
def test_entries_that_would_tie_are_found(one, other, what):
    (clash,) = PeerTable([one, other]).clashes()
    assert (clash.first.name, clash.second.name, clash.what) == ("a", "b", what)


def test_a_narrower_range_within_a_wider_one_is_no_clash():
    assert list(TABLE.clashes()) == []


@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=8), st.integers(0, 32), st.ip_addresses(v=4))
def test_it_finds_what_looking_at_every_network_finds(bases, length, asked):
    networks = {ipaddress.ip_network((base, length), strict=False) for base in bases}
    table = PeerTable(mesh_entry(network) for network in networks)
    inside = [network for network in networks if asked in network]
    found = table.by_address(str(asked), 80)
    assert (found.networks if found else ()) == tuple(inside)
