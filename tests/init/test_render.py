"""Plans as text: golden files that a person can review, and iptables itself as the judge of them.

After a wanted change: QBITEL_UPDATE_GOLDEN=1 pytest tests/init/test_render.py, then read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from init.config import InterceptionConfig
from init.guard import with_guard
from init.plan import make_plan
from init.render import dry_run_text, plan_text, rule_text, transaction
from init.rules import Family, empty_plan
from init.state import differences, parse_save
from tests.init.configs import CONFIGS

if TYPE_CHECKING:
    from tests.init.conftest import Namespace

GOLDEN = Path(__file__).with_name("golden")
UPDATE = os.environ.get("QBITEL_UPDATE_GOLDEN") == "1"
SUFFIX = {Family.V4: "v4", Family.V6: "v6"}


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
    program = f"{family.program}-{backend}"
    state = parse_save("")
    plans = [(name, make_plan(config, family)) for name, config in CONFIGS.items()]
    guarded = ("guard", with_guard(make_plan(CONFIGS["everything-at-once-by-tproxy"], family)))
    # One after the other, so that each also has what another left behind to take away.
    for name, plan in (*plans, guarded, ("nothing", empty_plan(family))):
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
