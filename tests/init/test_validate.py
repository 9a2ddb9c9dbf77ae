"""Proof by a real connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.init.conftest import PEER, POD, Namespace, Pair, join

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.fixture
def silent(routed: Pair) -> Pair:
    """A pod whose gateway drops everything without a word, with a second interface whose network it is the first of."""
    routed.peer.run("ip", "route", "add", "blackhole", "default")
    pod = routed.pod
    pod.run("ip", "link", "add", "net1", "type", "veth", "peer", "name", "net0")
    for name in ("net0", "net1"):
        pod.run("ip", "link", "set", name, "up")
    pod.run("ip", "address", "add", "10.88.0.1/24", "dev", "net1")
    return routed


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
def test_a_connection_that_arrives_elsewhere_is_exit_code_126(routed: Pair) -> None:
    # Without a redirect, the gateway refuses the connection at once.
    routed.peer.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    answer = routed.pod.qbitel_init("--validate-only", "--ipv6", "off", check=False)
    assert answer.returncode == 126
    assert answer.stderr.count("\n") == 1
    assert "192.0.2.1:15002 did not arrive at the sidecar's port 15001" in answer.stderr
    # Somebody else who answers there is no proof either.
    routed.peer.serve(15002)
    answer = routed.pod.qbitel_init("--validate-only", "--ipv6", "off", check=False)
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
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--exclude-interfaces eth0", "192.0.2.1 is reached over eth0, which is not captured"),
        ("--exclude-interfaces eth+", "192.0.2.1 is reached over eth0, which is not captured"),
        ("--include-interfaces net1", "192.0.2.1 is reached over eth0, which is not captured"),
        ("--include-outbound-cidrs 10.77.0.2/32", "10.77.0.2 is this pod itself, and what it sends itself is not"),
        ("--include-outbound-cidrs 127.0.0.0/8", "127.0.0.1 is this pod itself, and what it sends itself is not"),
        ("--include-outbound-cidrs 255.255.255.255", "there is no route to 255.255.255.255"),
    ],
)
def test_correct_rules_that_cannot_be_tried_from_here_are_no_error(silent: Pair, options: str, words: str) -> None:
    answer = silent.pod.qbitel_init(*options.split(), "--validate", "--ipv6", "off")
    assert answer.stderr.startswith(f"qbitel init: not proved by a connection: ipv4: {words}")
    assert answer.stderr.count("\n") == 1


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "host"),
    [
        # Its first address is this pod's.
        ("--include-outbound-cidrs 10.88.0.0/24", "10.88.0.2"),
        ("--include-outbound-cidrs 10.0.0.0/8 --exclude-outbound-cidrs 10.0.0.0/24", "10.0.1.1"),
        # The first network is behind an interface that is not captured.
        ("--include-outbound-cidrs 10.88.0.0/24,198.18.0.0/15 --exclude-interfaces net1", "198.18.0.1"),
        ("--include-interfaces net1,eth+", "192.0.2.1"),
    ],
)
def test_an_address_that_can_be_tried_is_found_and_proves_the_rules(silent: Pair, options: str, host: str) -> None:
    words = (*options.split(), "--ipv6", "off")
    answer = silent.pod.qbitel_init(*words, "--validate")
    assert answer.stderr == ""
    assert f"a connection to {host}:15002 arrived" in answer.stdout
    silent.pod.qbitel_init("--cleanup")
    silent.peer.run("ip", "route", "del", "blackhole", "default")  # it now refuses, which is quicker than silence
    assert silent.pod.qbitel_init(*words, "--validate-only", check=False).returncode == 126


@pytest.mark.root
def test_a_sidecar_that_listens_already_is_a_reason_not_to_validate(reachable: Namespace) -> None:
    reachable.serve(15001)
    answer = reachable.qbitel_init("--validate", check=False)
    assert answer.returncode == 2
    assert "port 15001 (ipv4) cannot be listened on" in answer.stderr
