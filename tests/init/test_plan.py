"""The plan as data: what the golden files of test_render.py do not say by themselves."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from init.config import InterceptionConfig, PortRange
from init.plan import PREFIX, Chain, Family, Match, Plan, empty_plan, make_plan, with_guard

both_families = pytest.mark.parametrize("family", list(Family))
some_ports = st.lists(st.integers(1, 65535).map(lambda port: PortRange(port, port)), max_size=4).map(tuple)
some_networks = st.lists(st.ip_addresses().map(ipaddress.ip_network), max_size=4).map(tuple)
configs = st.builds(
    InterceptionConfig,
    include_inbound_ports=st.none() | some_ports,
    exclude_inbound_ports=some_ports,
    include_outbound_ports=st.none() | some_ports,
    exclude_outbound_ports=some_ports,
    include_outbound_cidrs=st.none() | some_networks,
    exclude_outbound_cidrs=some_networks,
    exclude_interfaces=st.sampled_from([(), ("eth1",), ("a", "veth+")]),
    drop_invalid=st.booleans(),
)


@given(configs, st.sampled_from(Family))
def test_every_plan_can_be_loaded_and_found_again(config: InterceptionConfig, family: Family) -> None:
    for plan in (make_plan(config, family), with_guard(make_plan(config, family))):
        for table in plan.tables:
            names = [chain.name for chain in table.chains]
            assert len(names) == len(set(names))
            # XT_EXTENSION_MAXNAMELEN of the kernel: 29 bytes with the terminating zero.
            assert all(name.startswith(PREFIX) and len(name) <= 28 for name in names)
            assert {jump.rule.target for jump in table.jumps} <= set(names)
            for rule in (rule for chain in table.chains for rule in chain.rules):
                assert rule.target in (*names, "RETURN", "DROP", "REDIRECT")
                assert (rule.to_port is not None) == (rule.target == "REDIRECT")
                # Ours to write without escapes; XT_MAX_COMMENT_LEN is 256 bytes with the terminating zero.
                assert 0 < len(rule.reason) < 256
                assert not set(rule.reason) & set("\"\\'`$")


@given(configs, st.sampled_from(Family))
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
def test_a_network_of_every_address_is_no_condition_at_all(family: Family) -> None:
    config = InterceptionConfig(
        include_outbound_cidrs=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    )
    assert _chain(make_plan(config, family), "QBITEL_OUTBOUND").rules[-1].matches == (Match("-p", "tcp"),)


@both_families
def test_the_guard_stands_before_everything_else(family: Family) -> None:
    plan = make_plan(InterceptionConfig(drop_invalid=True), family)
    guarded = with_guard(plan)
    (mangle, nat) = guarded.tables
    assert mangle.name == "mangle"
    assert [(jump.hook, jump.rule.target) for jump in mangle.jumps] == [
        ("PREROUTING", "QBITEL_GUARD"),
        ("OUTPUT", "QBITEL_GUARD"),
        ("PREROUTING", "QBITEL_INVALID"),
    ]
    assert nat == plan.tables[1]


@both_families
def test_an_empty_plan_has_no_rules(family: Family) -> None:
    assert empty_plan(family).rules == 0
    # Two jumps, fourteen rules in the chains for the two directions, one in each of those that redirect.
    assert make_plan(InterceptionConfig(), family).rules == 18


def _chain(plan: Plan, name: str) -> Chain:
    return next(chain for table in plan.tables for chain in table.chains if chain.name == name)
