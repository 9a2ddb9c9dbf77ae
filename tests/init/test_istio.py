"""What Istio writes beside its own chains is told from what anybody else may have written, and goes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from init.config import BackendChoice, InterceptionConfig, IPv6Mode
from init.foreign import EVERY_MESH, foreign_meshes
from init.istio import is_beside, is_direct
from init.rules import OURS
from init.script import render_script
from init.state import parse_save

if TYPE_CHECKING:
    from tests.init.conftest import Namespace, Pair

APP = {"uid": 1000, "gid": 1000}
CHAINS = ":ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\n"
DNS = (
    "-A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 1337 -j RETURN\n"
    "-A OUTPUT -p udp -m udp --dport 53 -m owner --gid-owner 1337 -j RETURN\n"
    "-A OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053\n"
    "-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053\n"
    "-A OUTPUT -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.1:15053\n"
)
MARKS = (
    "*mangle\n"
    "-A PREROUTING -p tcp -m mark --mark 0x539 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\n"
    "-A OUTPUT -o lo -p tcp -m mark --mark 0x539 -j RETURN\n"
    "-A OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner 1337 -j MARK --set-xmark 0x53a/0xffffffff\n"
    "-A OUTPUT -p tcp -m connmark --mark 0x539 -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n"
    "COMMIT\n"
)
ZONES = (
    "*raw\n"
    "-A PREROUTING -s 10.96.0.10/32 -p udp -m udp --sport 53 -j CT --zone 1\n"
    "-A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1\n"
    "-A OUTPUT -p udp -m udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2\n"
    "-A OUTPUT -p udp -m udp --dport 53 -j CT --zone 2\n"
    "COMMIT\n"
)
# Of no mesh, though some of it looks alike.
ANYBODYS = (
    "*nat\n-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353\n"
    "-A OUTPUT -d 192.0.2.1/32 -j ACCEPT\nCOMMIT\n"
    "*mangle\n-A OUTPUT -p tcp -m mark --mark 0x5390 -j RETURN\nCOMMIT\n"
    "*raw\n-A OUTPUT -p udp -m udp --dport 5353 -j CT --zone 2\nCOMMIT\n"
)
WITH_CHAINS = f"{MARKS}{ZONES}*nat\n{CHAINS}{DNS}COMMIT\n"
WITHOUT_CHAINS = f"{MARKS}{ZONES}*nat\n{DNS}COMMIT\n"

both = pytest.mark.parametrize("left", [WITH_CHAINS, WITHOUT_CHAINS], ids=["chains", "no chains"])


def _rules(text: str) -> set[str]:
    return {line for line in text.splitlines() if line.startswith("-A ")}


@pytest.mark.parametrize("text", [f"*nat\n{DNS}COMMIT\n", ZONES, WITH_CHAINS, WITHOUT_CHAINS])
def test_each_rule_of_istio_is_told_where_one_of_them_cannot_be_anybody_elses(text: str) -> None:
    state = parse_save(text)
    assert foreign_meshes([state]) == ("Istio",)
    found = {f"-A {hook} {rule}" for table in state.tables for hook, rule in state.own_jumps(table, EVERY_MESH)}
    assert found == _rules(text)
    assert not any(state.own_jumps(table, OURS) for table in state.tables)


@pytest.mark.parametrize("text", [MARKS, ZONES.replace("15053", "9"), ANYBODYS])
def test_rules_that_could_be_anybodys_are_nobodys_where_nothing_else_is_istios(text: str) -> None:
    state = parse_save(text)
    assert foreign_meshes([state]) == ()
    assert not any(state.own_jumps(table, EVERY_MESH) for table in state.tables)


def test_rules_that_look_alike_stay_even_beside_istio() -> None:
    state = parse_save(WITH_CHAINS + ANYBODYS)
    found = {f"-A {hook} {rule}" for table in state.tables for hook, rule in state.own_jumps(table, EVERY_MESH)}
    assert found == _rules(WITH_CHAINS)


def test_only_rules_in_chains_that_istio_writes_to_are_its_own() -> None:
    rule = "-p udp -m udp --dport 53 -j REDIRECT --to-ports 15053"
    assert is_direct("OUTPUT", rule)
    assert not is_direct("THEIRS", rule)
    assert not is_direct("OUTPUT", f'-m comment --comment "{rule}" -j ACCEPT')
    assert not is_beside("OUTPUT", rule)
    assert is_direct("OUTPUT", rule.replace("REDIRECT --to-ports 15053", "DNAT --to-destination [::1]:15053"))


# In a pod


@pytest.mark.root
@both
def test_a_pod_with_them_is_refused_and_left_as_it_is(namespace: Namespace, backend: str, left: str) -> None:
    namespace.run(f"iptables-{backend}-restore", "--noflush", text=left)
    before = namespace.rules(backend)
    for answer in (
        namespace.qbitel_init(check=False),
        namespace.script(render_script(InterceptionConfig()), check=False),
    ):
        assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
        assert "Istio intercepts this pod already" in answer.stderr
    assert namespace.rules(backend) == before


@pytest.mark.root
@both
@pytest.mark.parametrize("by", ["qbitel init", "script", "cleanup"])
def test_with_reconcile_they_go_with_their_routing_and_nothing_else_does(
    namespace: Namespace, backend: str, left: str, by: str
) -> None:
    namespace.run(f"iptables-{backend}-restore", "--noflush", text=ANYBODYS)
    namespace.run(f"iptables-{backend}-restore", "--noflush", text=left)
    for version in ("-4", "-6"):
        namespace.run("ip", version, "rule", "add", "fwmark", "0x539", "lookup", "133")
        namespace.run("ip", version, "route", "add", "local", "default", "dev", "lo", "table", "133")
    shown = namespace.qbitel_init("--check", check=False).stdout
    assert "does not belong here: -p udp -m udp --dport 53 -m owner --uid-owner 1337 -j RETURN\n" in shown
    assert "ipv4 raw OUTPUT: rule 3 does not belong here: -p udp -m udp --dport 53 -j CT --zone 2" in shown
    assert "ipv6 routing of Istio: the rule of fwmark 0x539 is left over" in shown
    assert (
        "--A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053"
        in namespace.qbitel_init("--diff", check=False).stdout
    )
    match by:
        case "script":
            config = InterceptionConfig(ipv6=IPv6Mode.OFF, backend=BackendChoice(backend))
            namespace.script(render_script(config, reconcile=True))
        case "cleanup":
            namespace.qbitel_init("--cleanup", "--reconcile")
        case _:
            namespace.qbitel_init("--reconcile", "--backend", backend)
    rules = _rules(namespace.rules(backend))
    assert {rule for rule in rules if "QBITEL" not in rule} == _rules(ANYBODYS)
    for version in ("-4", "-6"):
        assert "0x539" not in namespace.run("ip", version, "rule", "show").stdout
        assert namespace.run("ip", version, "route", "show", "table", "133", check=False).stdout == ""
    if by != "cleanup":
        assert namespace.qbitel_init("--check", "--backend", backend).stdout == ""


@pytest.mark.root
@pytest.mark.parametrize("by", ["qbitel init", "script"])
def test_a_pod_that_leaves_istio_has_dns_again(clean_pair: Pair, by: str) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[4]
    left = f"*nat\n{CHAINS}{DNS}COMMIT\n".replace("10.96.0.10", peer)
    pod.run("iptables-nft-restore", "--noflush", text=left)
    assert pod.dial(peer, 53, udp=1, **APP)["port"] == 15053
    if by == "script":
        pod.script(render_script(InterceptionConfig(), reconcile=True))
    else:
        pod.qbitel_init("--reconcile")
    assert pod.dial(peer, 53, udp=1, **APP)["port"] == 53
