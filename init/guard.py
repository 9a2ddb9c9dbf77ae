"""The guard: rules that let no new TCP connection in or out while the others are being changed. Pure.

In mangle, which sees a packet before nat does, with the addresses that the application chose. Only the first packet of
a connection is dropped: connections that stand go on, and the dialler's TCP tries again after about a second.
"""

from __future__ import annotations

from typing import Final

from init.plan import SYN
from init.rules import PREFIX, Chain, Jump, Match, Plan, Rule, Table

GUARD: Final = f"{PREFIX}GUARD"
_NOTHING_NEW: Final = Rule("rules are being changed: nothing new may slip past them", "DROP", (Match("-p", "tcp"), SYN))
GUARD_TABLE: Final = Table(
    "mangle",
    (Chain(GUARD, (_NOTHING_NEW,)),),
    tuple(
        Jump(hook, Rule("guard while rules are changed", GUARD, (Match(option, "lo", negated=True),)))
        for hook, option in (("PREROUTING", "-i"), ("OUTPUT", "-o"))
    ),
)


def with_guard(plan: Plan) -> Plan:
    """Return `plan` with the guard before everything else: no new TCP connection enters or leaves the pod."""
    mangle = [table for table in plan.tables if table.name == GUARD_TABLE.name]
    others = tuple(table for table in plan.tables if table.name != GUARD_TABLE.name)
    chains = GUARD_TABLE.chains + tuple(chain for table in mangle for chain in table.chains)
    jumps = GUARD_TABLE.jumps + tuple(jump for table in mangle for jump in table.jumps)
    return Plan(plan.family, (Table(GUARD_TABLE.name, chains, jumps), *others))
