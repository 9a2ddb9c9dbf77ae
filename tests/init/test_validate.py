"""Proof by a real connection."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from init.config import InterceptionConfig, parse_ids, parse_networks, parse_ports, parse_ports_of_users
from init.rules import Family
from init.validate import Probe, probe_for
from tests.init.conftest import PEER, POD, Namespace, Pair, join
from tests.init.test_plan import configs

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    assert probe_for(config, family, 0, 0) == Probe(family, host, port, arrives=15001)


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
    assert probe_for(config, V4, 0, 0) is None


@pytest.mark.parametrize(("family", "host", "source"), [(V4, "127.0.0.2", ""), (V6, "::6", "::1")])
def test_the_sidecars_user_comes_in_by_the_front_door(family: Family, host: str, source: str) -> None:
    assert probe_for(InterceptionConfig(), family, 2102, 5) == Probe(family, host, 15002, 15006, source)
    # Its group alone is let out, and never comes in by the front door over lo.
    assert probe_for(InterceptionConfig(), family, 5, 2102) is None


@given(configs, st.sampled_from(Family), st.integers(0, 5000), st.integers(0, 5000))
@settings(max_examples=50)
def test_a_probe_is_never_something_that_is_excluded(
    config: InterceptionConfig, family: Family, uid: int, gid: int
) -> None:
    probe = probe_for(config, family, uid, gid)
    if probe is not None:
        assert not any(ports.first <= probe.port <= ports.last for ports in config.exclude_outbound_ports)
        if probe.arrives == config.outbound_port:
            address = ipaddress.ip_address(probe.host)
            assert not any(address in network for network in config.exclude_outbound_cidrs)
            assert not any(ids.first <= uid <= ids.last for ids in config.exclude_uids)


@pytest.fixture
def reachable(namespace: Namespace) -> Namespace:
    """A namespace with a default route that leads nowhere, as a pod's leads to its node."""
    namespace.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    for name in ("eth0", "eth1"):
        namespace.run("ip", "link", "set", name, "up")
    namespace.run("ip", "address", "add", "10.77.0.2/24", "dev", "eth0")
    namespace.run("ip", "address", "add", "fd77::2/64", "dev", "eth0", "nodad")
    namespace.run("ip", "route", "add", "default", "dev", "eth0")
    namespace.run("ip", "-6", "route", "add", "default", "dev", "eth0")
    return namespace


@pytest.fixture
def routed(namespace: Namespace) -> Iterator[Pair]:
    """A pod whose default route leads to a gateway that forwards, and that itself has no route to anywhere else."""
    gateway = Namespace()
    join(namespace, gateway)
    for version in (4, 6):
        namespace.run("ip", f"-{version}", "route", "add", "default", "via", PEER[version])
    gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    yield Pair(namespace, gateway, POD, PEER)
    gateway.close()


@pytest.mark.root
def test_after_applying_a_redirected_connection_proves_both_families(reachable: Namespace) -> None:
    answer = reachable.qbitel_init("--validate")
    assert answer.stdout.splitlines()[1:] == [
        "qbitel init: a connection to 192.0.2.1:15002 arrived at port 15001, as it must",
        "qbitel init: a connection to [2001:db8::1]:15002 arrived at port 15001, as it must",
    ]
    assert answer.stderr == ""


@pytest.mark.root
def test_as_the_sidecar_the_front_door_is_proved_without_any_privilege(namespace: Namespace) -> None:
    namespace.qbitel_init("--ipv6", "on")
    said = namespace.qbitel_init("--validate-only", "--ipv6", "on", uid=2102).stdout
    assert said.splitlines() == [
        "qbitel init: a connection to 127.0.0.2:15002 arrived at port 15006, as it must",
        "qbitel init: a connection to [::6]:15002 arrived at port 15006, as it must",
    ]


@pytest.mark.root
def test_rules_that_stand_and_do_not_work_are_exit_code_126(reachable: Namespace) -> None:
    # The address is the pod's own here: without a redirect, the connection is refused at once.
    reachable.run("ip", "address", "add", "192.0.2.1/32", "dev", "eth0")
    answer = reachable.qbitel_init("--validate-only", "--ipv6", "off", check=False)
    assert answer.returncode == 126
    assert answer.stderr.count("\n") == 1
    assert "192.0.2.1:15002 did not arrive at the sidecar's port 15001" in answer.stderr
    # Somebody else who answers there is no proof either.
    reachable.serve(15002)
    answer = reachable.qbitel_init("--validate-only", "--ipv6", "off", check=False)
    assert answer.returncode == 126
    assert "somebody else answered it" in answer.stderr


@pytest.mark.root
def test_without_a_route_a_line_says_that_nothing_was_proved(namespace: Namespace) -> None:
    answer = namespace.qbitel_init("--validate")
    assert answer.returncode == 0
    assert answer.stderr == "qbitel init: not proved by a connection: ipv4: there is no route to 192.0.2.1\n"


@pytest.mark.root
@pytest.mark.parametrize(("program", "missed"), [("iptables", "192.0.2.1"), ("ip6tables", "[2001:db8::1]")])
def test_a_router_that_says_unreachable_was_asked_and_so_it_is_exit_code_126(
    routed: Pair, program: str, missed: str
) -> None:
    said = routed.pod.qbitel_init("--validate-only", check=False)
    assert said.returncode == 126
    assert "192.0.2.1:15002 did not arrive at the sidecar's port 15001" in said.stderr
    # And where the rules of one family alone are gone.
    routed.pod.qbitel_init()
    assert routed.pod.qbitel_init("--validate-only").stdout.count("as it must") == 2
    routed.pod.run(f"{program}-nft", "-t", "nat", "-F", "OUTPUT")
    said = routed.pod.qbitel_init("--validate-only", check=False)
    assert said.returncode == 126
    assert f"{missed}:15002 did not arrive" in said.stderr


@pytest.mark.root
def test_a_sidecar_that_listens_already_is_a_reason_not_to_validate(reachable: Namespace) -> None:
    reachable.serve(15001)
    answer = reachable.qbitel_init("--validate", check=False)
    assert answer.returncode == 2
    assert "port 15001 (ipv4) cannot be listened on" in answer.stderr
