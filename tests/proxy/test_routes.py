"""Destinations inside and outside the mesh's networks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import networks
from proxy.routes import Route, RouteTable

TABLE = RouteTable(networks(["10.0.0.0/8", "192.168.1.7/32", "fd00::/8"]))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.0", Route.MESH),
        ("10.255.255.255", Route.MESH),
        ("11.0.0.0", Route.PASSTHROUGH),
        ("192.168.1.7", Route.MESH),
        ("192.168.1.8", Route.PASSTHROUGH),
        ("fd12::1", Route.MESH),
        ("fe80::1%eth0", Route.PASSTHROUGH),
        ("::ffff:10.1.2.3", Route.MESH),
        ("::ffff:11.1.2.3", Route.PASSTHROUGH),
    ],
)
def test_the_network_of_the_destination_decides(address, expected):
    assert TABLE.route(address) is expected


def test_without_networks_everything_passes_through():
    assert RouteTable(()).route("10.0.0.1") is Route.PASSTHROUGH


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_spelled_as_ipv6_has_the_same_route(address):
    assert TABLE.route(f"::ffff:{address}") is TABLE.route(str(address))
