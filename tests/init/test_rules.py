"""Plans as values."""

from __future__ import annotations

import ipaddress

import pytest

from init.config import InterceptionConfig
from init.plan import make_plan
from init.rules import OURS, PREFIX, Family, empty_plan, network_text

both_families = pytest.mark.parametrize("family", list(Family))


@both_families
def test_the_addresses_of_a_family_are_of_its_version(family: Family) -> None:
    found = (family.loopback, family.inbound_source, ipaddress.ip_network(family.unspecified))
    assert {network.version for network in found} == {family.version}
    assert family.loopback != family.inbound_source
    assert family.self_test.is_loopback or family.self_test == family.inbound_source
    assert family.self_test != family.loopback


def test_the_programs_of_a_family_are_those_of_iptables() -> None:
    assert [family.program for family in Family] == ["iptables", "ip6tables"]


@both_families
def test_an_empty_plan_has_no_rules_and_every_rule_of_another_is_counted(family: Family) -> None:
    assert empty_plan(family).rules == 0
    # Two jumps, fourteen rules in the chains for the two directions, one in each of those that redirect.
    assert make_plan(InterceptionConfig(), family).rules == 18


def test_our_chains_are_told_by_their_prefix_alone() -> None:
    assert OURS == (PREFIX,)
    names = [chain.name for table in make_plan(InterceptionConfig(), Family.V4).tables for chain in table.chains]
    assert all(name.startswith(PREFIX) for name in names)


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8", "::ffff:192.0.2.0/120", "::1/128", "2001:db8:0:1::/64"]
)
def test_networks_are_written_as_the_programs_of_iptables_do(text: str) -> None:
    assert network_text(ipaddress.ip_network(text)) == text
