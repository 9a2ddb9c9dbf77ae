"""The guard as data; what it does to real packets is in test_apply.py and test_script.py."""

from __future__ import annotations

import pytest

from init.config import InboundMode, InterceptionConfig
from init.guard import GUARD, with_guard
from init.plan import make_plan
from init.rules import Family, Match, empty_plan

both_families = pytest.mark.parametrize("family", list(Family))


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
def test_the_guard_comes_before_tproxy_and_leaves_the_rest_of_its_table(family: Family) -> None:
    plan = make_plan(InterceptionConfig(inbound_mode=InboundMode.TPROXY), family)
    mangle = with_guard(plan).tables[0]
    assert mangle.chains[1:] == plan.tables[0].chains
    assert [jump.rule.target for jump in mangle.jumps if jump.hook == "PREROUTING"] == [GUARD, "QBITEL_INBOUND"]


@both_families
def test_alone_the_guard_is_one_table_that_spares_lo_and_connections_that_stand(family: Family) -> None:
    (table,) = with_guard(empty_plan(family)).tables
    ((drop,),) = (chain.rules for chain in table.chains)
    assert drop.target == "DROP"
    assert Match("--tcp-flags", "FIN,SYN,RST,ACK SYN") in drop.matches
    assert all(match.negated and match.value == "lo" for jump in table.jumps for match in jump.rule.matches)
