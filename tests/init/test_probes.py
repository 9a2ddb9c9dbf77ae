"""Which connections would prove the rules: captured, of this user, and none that anything excludes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from init.config import InterceptionConfig, Network, parse_ids, parse_networks, parse_ports, parse_ports_of_users
from init.probes import Probe, captures_interface, probes_for
from init.rules import Family
from tests.init.test_config import networks
from tests.init.test_plan import configs

V4, V6 = Family.V4, Family.V6


def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return parse_networks("--networks", text)


@pytest.mark.parametrize(
    ("config", "family", "host", "port"),
    [
        (InterceptionConfig(), V4, "192.0.2.1", 15002),
        (InterceptionConfig(), V6, "2001:db8::1", 15002),
        (InterceptionConfig(exclude_outbound_ports=parse_ports("", "15002")), V4, "192.0.2.1", 1),
        (InterceptionConfig(exclude_outbound_ports=parse_ports("", "1-15002")), V4, "192.0.2.1", 15003),
        (InterceptionConfig(exclude_outbound_cidrs=_networks("192.0.2.0/24")), V4, "198.51.100.1", 15002),
        (InterceptionConfig(include_outbound_cidrs=_networks("10.0.0.0/8")), V4, "10.0.0.1", 15002),
        (
            InterceptionConfig(include_outbound_cidrs=(), include_outbound_ports=parse_ports("", "443")),
            V6,
            "2001:db8::1",
            443,
        ),
        (
            InterceptionConfig(exclude_outbound_ports_for_uids=parse_ports_of_users("", "0:1-15002")),
            V4,
            "192.0.2.1",
            15003,
        ),
    ],
)
def test_a_user_dials_what_is_captured(config: InterceptionConfig, family: Family, host: str, port: int) -> None:
    assert next(probes_for(config, family, 0, 0)) == Probe(family, host, port, arrives=15001)


@pytest.mark.parametrize(
    "config",
    [
        InterceptionConfig(include_outbound_cidrs=()),
        InterceptionConfig(include_outbound_cidrs=_networks("fd00::/8")),
        InterceptionConfig(exclude_outbound_cidrs=_networks("0.0.0.0/0")),
        InterceptionConfig(exclude_outbound_ports=parse_ports("", "1-65535")),
        InterceptionConfig(exclude_uids=parse_ids("", "0-10")),
        InterceptionConfig(exclude_gids=parse_ids("", "0")),
        InterceptionConfig(include_uids=parse_ids("", "1000")),
    ],
)
def test_where_nothing_of_this_user_is_captured_nothing_is_dialled(config: InterceptionConfig) -> None:
    assert list(probes_for(config, V4, 0, 0)) == []


@pytest.mark.parametrize(("family", "host", "source"), [(V4, "127.0.0.2", ""), (V6, "::6", "::1")])
def test_the_sidecars_user_comes_in_by_the_front_door(family: Family, host: str, source: str) -> None:
    assert list(probes_for(InterceptionConfig(), family, 2102, 5)) == [Probe(family, host, 15002, 15006, source)]
    # Its group alone is let out, and never comes in by the front door over lo.
    assert list(probes_for(InterceptionConfig(), family, 5, 2102)) == []


@given(configs, st.sampled_from(Family), st.integers(0, 5000), st.integers(0, 5000))
@settings(max_examples=50)
def test_a_probe_is_never_something_that_is_excluded(
    config: InterceptionConfig, family: Family, uid: int, gid: int
) -> None:
    for probe in probes_for(config, family, uid, gid):
        assert not any(ports.first <= probe.port <= ports.last for ports in config.exclude_outbound_ports)
        if probe.arrives == config.outbound_port:
            address = ipaddress.ip_address(probe.host)
            assert not any(address in network for network in config.exclude_outbound_cidrs)
            assert not any(ids.first <= uid <= ids.last for ids in config.exclude_uids)


def _hosts(config: InterceptionConfig, family: Family = V4) -> list[str]:
    return [probe.host for probe in probes_for(config, family, 0, 0)]


@pytest.mark.parametrize(
    ("included", "excluded", "first"),
    [
        ("10.0.0.0/8", "10.0.0.0/24", "10.0.1.1"),
        ("10.0.0.0/8", "10.0.0.0/24,10.0.1.0/24,10.0.0.0/16", "10.1.0.1"),
        ("10.0.0.0/30", "10.0.0.1,10.0.0.2/31", "10.0.0.0"),
        ("10.0.0.0/30", "10.0.0.0/31", "10.0.0.3"),
        ("10.0.0.0/24,172.16.0.0/12", "0.0.0.0/1", "172.16.0.1"),
        ("0.0.0.0/0", "192.0.2.0/24", "198.51.100.1"),
        ("fd00::/8", "fd00::/9,fe80::/10", "fd80::1"),
        ("fd00::/8", "10.0.0.0/8", "fd00::1"),
    ],
)
def test_what_is_left_of_an_included_network_is_dialled(included: str, excluded: str, first: str) -> None:
    config = InterceptionConfig(include_outbound_cidrs=_networks(included), exclude_outbound_cidrs=_networks(excluded))
    assert _hosts(config, V6 if ":" in first else V4)[0] == first


def test_where_the_addresses_of_nobody_are_excluded_others_are_dialled() -> None:
    documentation = "192.0.2.0/24,198.51.100.0/24,203.0.113.0/24,2001:db8::/32"
    for family in Family:
        assert _hosts(InterceptionConfig(exclude_outbound_cidrs=_networks(documentation)), family)


@given(st.lists(networks, min_size=1, max_size=4), st.lists(networks, max_size=8), st.sampled_from(Family))
@settings(max_examples=200)
def test_the_addresses_of_each_network_are_inside_of_it_and_few(
    included: list[Network], excluded: list[Network], family: Family
) -> None:
    config = InterceptionConfig(include_outbound_cidrs=tuple(included), exclude_outbound_cidrs=tuple(excluded))
    hosts = list(map(ipaddress.ip_address, _hosts(config, family)))
    assert len(hosts) <= 64
    for host in hosts:
        assert host.version == family.version
        assert any(host in network for network in included if network.version == host.version)
        assert not any(host in network for network in excluded if network.version == host.version)


def test_each_included_network_has_its_turn_before_the_second_address_of_any() -> None:
    config = InterceptionConfig(include_outbound_cidrs=_networks("10.1.0.0/16,10.2.0.0/16,10.3.0.0/16"))
    assert _hosts(config)[:4] == ["10.1.0.1", "10.2.0.1", "10.3.0.1", "10.1.0.2"]


@pytest.mark.parametrize("text", ["224.0.0.0/4", "0.0.0.0/32", "ff00::/8", "::", "fe80::/10", "::ffff:0:0/96"])
def test_what_no_connection_of_its_family_can_go_to_is_not_dialled(text: str) -> None:
    config = InterceptionConfig(include_outbound_cidrs=_networks(text))
    assert _hosts(config, V6 if ":" in text else V4) == []


@pytest.mark.parametrize(
    ("included", "excluded", "captured", "not_captured"),
    [
        (None, (), ["eth0", "net1"], []),
        (None, ("eth0", "veth+"), ["eth1", "eth01"], ["eth0", "veth", "veth1"]),
        (("eth+",), ("eth1",), ["eth", "eth0", "eth10"], ["eth1", "net1"]),
        (("net1",), (), ["net1"], ["eth0", "net12"]),
    ],
)
def test_interfaces_are_captured_as_the_packet_filter_matches_them(
    included: tuple[str, ...] | None, excluded: tuple[str, ...], captured: list[str], not_captured: list[str]
) -> None:
    config = InterceptionConfig(include_interfaces=included, exclude_interfaces=excluded)
    names = captured + not_captured
    assert [name for name in names if captures_interface(config, name)] == captured
