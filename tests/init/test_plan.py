"""The plan as data: what the golden files of test_render.py do not say by themselves."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from init.config import IdRange, InboundMode, InterceptionConfig, PortRange, PortsOfUsers, parse_ports
from init.guard import with_guard
from init.plan import make_plan
from init.rules import PREFIX, Chain, Family, Match, Plan

both_families = pytest.mark.parametrize("family", list(Family))
ports = st.integers(1, 65535).map(lambda port: PortRange(port, port))
some_ports = st.lists(ports, max_size=4).map(tuple)
some_networks = st.lists(st.ip_addresses().map(ipaddress.ip_network), max_size=4).map(tuple)
ids = st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)).map(lambda pair: IdRange(min(pair), max(pair)))
some_ids = st.lists(ids, max_size=3).map(tuple)
users = st.builds(PortsOfUsers, uids=ids, ports=some_ports)
configs = st.builds(
    InterceptionConfig,
    include_inbound_ports=st.none() | some_ports,
    exclude_inbound_ports=some_ports,
    include_inbound_sources=st.none() | some_networks.filter(bool),
    exclude_inbound_sources=some_networks,
    include_outbound_ports=st.none() | some_ports,
    exclude_outbound_ports=some_ports,
    include_outbound_cidrs=st.none() | some_networks,
    exclude_outbound_cidrs=some_networks,
    include_uids=st.none() | some_ids.filter(bool),
    include_gids=st.none() | some_ids.filter(bool),
    exclude_uids=some_ids,
    exclude_gids=some_ids,
    exclude_outbound_ports_for_uids=st.lists(users, max_size=2).map(tuple),
    include_interfaces=st.sampled_from([None, ("eth0",), ("eth0", "net+")]),
    exclude_interfaces=st.sampled_from([(), ("eth1",), ("a", "veth+")]),
    inbound_mode=st.sampled_from(InboundMode),
    dns_port=st.none() | st.just(15053),
    drop_invalid=st.booleans(),
)
TARGETS = {"RETURN", "DROP", "REDIRECT", "TPROXY", "CONNMARK", "CT"}


@given(configs, st.sampled_from(Family))
@settings(max_examples=50)
def test_every_plan_can_be_loaded_and_found_again(config: InterceptionConfig, family: Family) -> None:
    for plan in (make_plan(config, family), with_guard(make_plan(config, family))):
        for table in plan.tables:
            names = [chain.name for chain in table.chains]
            assert len(names) == len(set(names))
            # XT_EXTENSION_MAXNAMELEN of the kernel: 29 bytes with the terminating zero.
            assert all(name.startswith(PREFIX) and len(name) <= 28 for name in names)
            assert {jump.rule.target for jump in table.jumps} <= set(names)
            for rule in (rule for chain in table.chains for rule in chain.rules):
                assert rule.target in TARGETS | set(names)
                assert bool(rule.options) == (rule.target in TARGETS - {"RETURN", "DROP"})
                # Ours to write without escapes; XT_MAX_COMMENT_LEN is 256 bytes with the terminating zero.
                assert 0 < len(rule.reason) < 256
                assert not set(rule.reason) & set("\"\\'`$")


@given(configs, st.sampled_from(Family))
@settings(max_examples=50)
def test_addresses_of_the_other_family_never_appear(config: InterceptionConfig, family: Family) -> None:
    for table in make_plan(config, family).tables:
        for rule in (rule for chain in table.chains for rule in chain.rules):
            for match in rule.matches:
                if match.option in ("-s", "-d"):
                    assert ipaddress.ip_network(match.value).version == family.version


@both_families
def test_probes_metrics_and_tunnels_are_never_captured(family: Family) -> None:
    everything = InterceptionConfig(include_inbound_ports=(PortRange(1, 65535),))
    rules = _chain(make_plan(everything, family), "QBITEL_INBOUND").rules
    returned = [
        match.value for rule in rules if rule.target == "RETURN" for match in rule.matches if match.option == "--dport"
    ]
    assert returned == ["15008", "15090", "15021", "15020"]
    assert rules[-1].target == "QBITEL_IN_REDIRECT"


def test_a_port_that_is_always_excluded_is_not_excluded_twice() -> None:
    twice = InterceptionConfig(exclude_inbound_ports=(PortRange(15090, 15090),))
    assert make_plan(twice, Family.V4) == make_plan(InterceptionConfig(), Family.V4)


def test_excluded_ports_come_before_the_sidecars_own_rules_and_networks_after() -> None:
    config = InterceptionConfig(
        exclude_outbound_ports=(PortRange(22, 22),), exclude_outbound_cidrs=(ipaddress.ip_network("192.0.2.0/24"),)
    )
    rules = _chain(make_plan(config, Family.V4), "QBITEL_OUTBOUND").rules
    places = [
        next(place for place, rule in enumerate(rules) if match in rule.matches)
        for match in (
            Match("--dport", "22"),
            Match("-s", "127.0.0.6/32"),
            Match("--uid-owner", "2102"),
            Match("--gid-owner", "2102"),
            Match("-d", "127.0.0.1/32"),
            Match("-d", "192.0.2.0/24"),
        )
    ]
    assert places == sorted(places)


@both_families
@pytest.mark.parametrize("excluded", ["15002", "15000-15100", "1-65535", "22,15002-15003"])
def test_the_self_test_of_the_sidecar_comes_before_ports_that_are_excluded(family: Family, excluded: str) -> None:
    config = InterceptionConfig(exclude_outbound_ports=parse_ports("", excluded), exclude_interfaces=("eth1",))
    interface, self_test, first, *_ = _chain(make_plan(config, family), "QBITEL_OUTBOUND").rules
    assert interface.matches == (Match("-o", "eth1"),)
    assert self_test.target == "QBITEL_IN_REDIRECT"
    assert {Match("--dport", "15002"), Match("--uid-owner", "2102"), Match("-o", "lo")} < set(self_test.matches)
    assert (first.target, first.reason) == ("RETURN", "outbound port is excluded")


@both_families
def test_where_no_excluded_port_is_that_of_the_self_test_it_needs_no_rule(family: Family) -> None:
    config = InterceptionConfig(exclude_outbound_ports=parse_ports("", "1-15001,15003-65535"))
    rules = _chain(make_plan(config, family), "QBITEL_OUTBOUND").rules
    assert rules[0].reason == "outbound port is excluded"


@both_families
def test_a_network_of_every_address_is_no_condition_at_all(family: Family) -> None:
    config = InterceptionConfig(
        include_outbound_cidrs=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    )
    assert _chain(make_plan(config, family), "QBITEL_OUTBOUND").rules[-1].matches == (Match("-p", "tcp"),)


@both_families
@pytest.mark.parametrize("mode", list(InboundMode))
def test_an_excluded_source_is_let_past_before_any_port_is_looked_at(family: Family, mode: InboundMode) -> None:
    config = InterceptionConfig(
        exclude_inbound_sources=(ipaddress.ip_network("192.0.2.1"), ipaddress.ip_network("2001:db8::1")),
        inbound_mode=mode,
    )
    *_, exempt, last = _chain(make_plan(config, family), "QBITEL_INBOUND").rules
    assert (exempt.target, exempt.matches[0].option) == ("RETURN", "-s")
    assert last.target in ("QBITEL_IN_REDIRECT", "QBITEL_IN_TPROXY")


@both_families
def test_sources_of_the_other_family_alone_capture_nothing(family: Family) -> None:
    other = "2001:db8::/32" if family is Family.V4 else "192.0.2.0/24"
    config = InterceptionConfig(include_inbound_sources=(ipaddress.ip_network(other),))
    assert {rule.target for rule in _chain(make_plan(config, family), "QBITEL_INBOUND").rules} == {"RETURN"}


def test_with_included_users_nobody_else_is_captured() -> None:
    config = InterceptionConfig(include_uids=(IdRange(1000, 1999),), include_gids=(IdRange(50, 50),), dns_port=15053)
    rules = _chain(make_plan(config, Family.V4), "QBITEL_OUTBOUND").rules
    assert [(rule.target, rule.matches) for rule in rules[-2:]] == [
        ("QBITEL_OUT_CAPTURE", (Match("--uid-owner", "1000-1999"),)),
        ("QBITEL_OUT_CAPTURE", (Match("--gid-owner", "50"),)),
    ]
    assert {rule.target for rule in rules[:-2]} == {"RETURN", "QBITEL_IN_REDIRECT"}


def test_with_included_interfaces_lo_is_still_looked_at_outbound_and_never_inbound() -> None:
    config = InterceptionConfig(include_interfaces=("eth0",))
    (nat,) = make_plan(config, Family.V4).tables
    assert [(jump.hook, jump.rule.matches[0]) for jump in nat.jumps] == [
        ("PREROUTING", Match("-i", "eth0")),
        ("OUTPUT", Match("-o", "lo")),
        ("OUTPUT", Match("-o", "eth0")),
    ]


def test_tproxy_takes_the_first_packet_only_and_nothing_that_comes_out_of_lo() -> None:
    mangle = make_plan(InterceptionConfig(inbound_mode=InboundMode.TPROXY), Family.V4).tables[0]
    assert mangle.name == "mangle"
    chains = {chain.name: chain.rules for chain in mangle.chains}
    assert (chains["QBITEL_INBOUND"][0].target, chains["QBITEL_INBOUND"][0].matches) == ("RETURN", (Match("-i", "lo"),))
    (tproxy,) = chains["QBITEL_IN_TPROXY"]
    assert Match("--tcp-flags", "FIN,SYN,RST,ACK SYN") in tproxy.matches


def test_questions_of_the_sidecar_and_of_the_application_are_tracked_apart() -> None:
    raw = make_plan(InterceptionConfig(dns_port=15053), Family.V4).tables[0]
    assert raw.name == "raw"
    zones = [(rule.reason, rule.options[1]) for chain in raw.chains for rule in chain.rules]
    assert zones == [
        ("the sidecar asks", "1"),
        ("the sidecar asks", "1"),
        ("the sidecar answers", "2"),
        ("the application asks", "2"),
        ("a name server answers the sidecar", "1"),
    ]


def _chain(plan: Plan, name: str) -> Chain:
    return next(chain for table in plan.tables for chain in table.chains if chain.name == name)
