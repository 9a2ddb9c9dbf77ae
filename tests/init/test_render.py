"""Plans as text: golden files that a person can review, and iptables itself as the judge of them.

After a wanted change: QBITEL_UPDATE_GOLDEN=1 pytest tests/init/test_render.py, then read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from init import config as reading
from init.config import InterceptionConfig
from init.plan import Family, empty_plan, make_plan, with_guard
from init.render import dry_run_text, plan_text, rule_text, transaction
from init.state import differences, parse_save

if TYPE_CHECKING:
    from tests.init.conftest import Namespace

GOLDEN = Path(__file__).with_name("golden")
UPDATE = os.environ.get("QBITEL_UPDATE_GOLDEN") == "1"
SUFFIX = {Family.V4: "v4", Family.V6: "v6"}
PROGRAM = {Family.V4: "iptables", Family.V6: "ip6tables"}


def _ports(text: str) -> reading.Ports:
    return reading.parse_ports("--ports", text)


def _networks(text: str) -> reading.Networks:
    return reading.parse_networks("--networks", text)


CONFIGS: dict[str, InterceptionConfig] = {
    "defaults": InterceptionConfig(),
    "exclude-inbound-ports": InterceptionConfig(exclude_inbound_ports=_ports("22,8000-8100")),
    "exclude-inbound-metrics-again": InterceptionConfig(exclude_inbound_ports=_ports("15090,9090")),
    "include-inbound-ports": InterceptionConfig(include_inbound_ports=_ports("80,443,8000:9000")),
    "include-and-exclude-inbound-ports": InterceptionConfig(
        include_inbound_ports=_ports("1-65535"), exclude_inbound_ports=_ports("22")
    ),
    "no-inbound": InterceptionConfig(include_inbound_ports=()),
    "exclude-outbound-ports": InterceptionConfig(exclude_outbound_ports=_ports("53,3306-3310")),
    "include-outbound-ports-only": InterceptionConfig(
        include_outbound_ports=_ports("80,8080-8089"), include_outbound_cidrs=()
    ),
    "include-outbound-cidrs": InterceptionConfig(
        include_outbound_cidrs=_networks("10.0.0.0/8,172.16.0.0/12,fd00::/8,2001:db8::/32")
    ),
    "include-outbound-ports-and-cidrs": InterceptionConfig(
        include_outbound_ports=_ports("443"), include_outbound_cidrs=_networks("10.0.0.0/8,fd00::/8")
    ),
    "include-every-outbound-port": InterceptionConfig(include_outbound_ports=None, include_outbound_cidrs=()),
    "include-networks-of-every-address": InterceptionConfig(include_outbound_cidrs=_networks("0.0.0.0/0,::/0")),
    "no-outbound": InterceptionConfig(include_outbound_cidrs=()),
    "exclude-outbound-cidrs": InterceptionConfig(
        exclude_outbound_cidrs=_networks("169.254.169.254,192.0.2.0/24,fd00:ec2::254,::ffff:192.0.2.0/120")
    ),
    "exclude-interfaces": InterceptionConfig(exclude_interfaces=("eth1", "veth+")),
    "other-sidecar-user": InterceptionConfig(proxy_uid=3000, proxy_gid=3001),
    "other-sidecar-ports": InterceptionConfig(outbound_port=16001, inbound_port=16006),
    "drop-invalid": InterceptionConfig(drop_invalid=True),
    "drop-invalid-but-not-on-an-interface": InterceptionConfig(drop_invalid=True, exclude_interfaces=("net1",)),
    "everything-at-once": InterceptionConfig(
        include_inbound_ports=_ports("80,8000-8100"),
        exclude_inbound_ports=_ports("8001,15090"),
        include_outbound_ports=_ports("443"),
        exclude_outbound_ports=_ports("25,465-587"),
        include_outbound_cidrs=_networks("10.0.0.0/8,fd00::/8"),
        exclude_outbound_cidrs=_networks("10.1.0.0/16,fd00:1::/32"),
        exclude_interfaces=("eth1",),
        proxy_uid=1500,
        proxy_gid=1501,
        drop_invalid=True,
    ),
}

every_config = pytest.mark.parametrize("name", CONFIGS)
every_family = pytest.mark.parametrize("family", list(Family), ids=SUFFIX.values())


@every_config
@every_family
def test_the_text_is_the_golden_one(name: str, family: Family) -> None:
    text = plan_text(make_plan(CONFIGS[name], family))
    golden = GOLDEN / f"{name}.{SUFFIX[family]}"
    if UPDATE:
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_file_has_its_configuration() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CONFIGS)


@pytest.mark.root
@every_family
def test_iptables_reads_back_every_golden_text_as_the_same_plan(
    namespace: Namespace, backend: str, family: Family
) -> None:
    program = f"{PROGRAM[family]}-{backend}"
    for name, config in CONFIGS.items():
        for plan in (make_plan(config, family), with_guard(make_plan(config, family)), empty_plan(family)):
            state = parse_save(namespace.run(f"{program}-save").stdout)
            changes = transaction(plan, state, differences(plan, state))
            namespace.run(f"{program}-restore", "--noflush", text=changes)
            state = parse_save(namespace.run(f"{program}-save").stdout)
            assert differences(plan, state) == {}, name
    assert not state.holds_ours


def test_a_transaction_mentions_nothing_foreign_and_only_tables_that_differ() -> None:
    state = parse_save(
        "*nat\n:OUTPUT ACCEPT [0:0]\n:THEIRS - [0:0]\n:QBITEL_OLD - [0:0]\n:QBITEL_INBOUND - [0:0]\n"
        "-A OUTPUT -j THEIRS\n-A OUTPUT -p tcp -j QBITEL_OLD\n-A THEIRS -j ACCEPT\n-A QBITEL_OLD -j DROP\nCOMMIT\n"
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\nCOMMIT\n"
    )
    plan = make_plan(InterceptionConfig(), Family.V4)
    lines = transaction(plan, state, differences(plan, state)).splitlines()
    assert lines[:3] == ["*nat", ":QBITEL_OLD - [0:0]", ":QBITEL_INBOUND - [0:0]"]
    assert lines.index("-D OUTPUT -p tcp -j QBITEL_OLD") < lines.index("-X QBITEL_OLD")
    assert lines[-2:] == ["-X QBITEL_OLD", "COMMIT"]
    assert not any("THEIRS" in line or "filter" in line for line in lines)


def test_rules_are_written_as_iptables_save_writes_them() -> None:
    (nat,) = make_plan(InterceptionConfig(), Family.V4).tables
    itself = next(rule for chain in nat.chains for rule in chain.rules if "front door" in rule.reason)
    assert rule_text(itself) == (
        "! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 2102 "
        '-m comment --comment "the sidecar calls its own pod: in by the front door" -j QBITEL_IN_REDIRECT'
    )


def test_a_dry_run_names_the_program_of_each_part_and_the_address() -> None:
    plans = [make_plan(InterceptionConfig(), family) for family in Family]
    comments = [line for line in dry_run_text(plans).splitlines() if line.startswith("#")]
    assert comments == [
        "# Nothing is applied. Each part is the input of one run of the program that it names.",
        "# ipv4: iptables-restore --noflush",
        "# ipv6: ip -6 address add ::6/128 dev lo",
        "# ipv6: ip6tables-restore --noflush",
    ]
