"""Plans as text for `iptables-restore --noflush`. Pure.

The text of one family is one run of iptables-restore, and each table in it is one transaction in the kernel:
a packet sees the old rules or the new ones, nothing in between.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from init.rules import OURS, Family, Match, Plan, Rule, Table
from mesh import names

if TYPE_CHECKING:
    from init.state import State

# The order in which iptables-save writes what belongs to no module; the others follow in their own order.
_FIRST: Final = ("-s", "-d", "-i", "-o", "-p")
# Which module an option comes from; ports come from the protocol's own.
_MODULES: Final = {
    "--uid-owner": "owner",
    "--gid-owner": "owner",
    "--ctstate": "conntrack",
    "--tcp-flags": "tcp",
}


def rule_text(rule: Rule) -> str:
    """Return `rule` as iptables-save writes it after `-A CHAIN`."""
    words: list[str] = []
    module = protocol = ""
    for match in sorted(rule.matches, key=_place):
        needed = protocol if match.option in ("--dport", "--sport") else _MODULES.get(match.option, match.module)
        if needed and needed != module:
            words += ["-m", needed]
            module = needed
        if match.option == "-p":
            protocol = match.value
        words += _match_words(match)
    words += ["-m", "comment", "--comment", _quoted(rule.reason), "-j", rule.target, *rule.options]
    return " ".join(words)


def plan_text(plan: Plan) -> str:
    """Return the text that puts `plan` into a family that holds nothing of ours yet."""
    return "".join(_section(table.name, _additions(table)) for table in plan.tables)


def transaction(plan: Plan, state: State, differing: Iterable[str], owned: Collection[str] = OURS) -> str:
    """Return the text that turns what `state` holds of ours into `plan`, in the tables named by `differing`.

    Ours are the chains that start with one of `owned`; other chains and rules are not mentioned, so they stay as they
    are. Order within a table: our chains are made or emptied, our old jumps removed, rules and jumps added, chains that
    the plan no longer has deleted.
    """
    planned = {table.name: table for table in plan.tables}
    sections: list[str] = []
    for name in differing:
        table = planned.get(name, Table(name, (), ()))
        wanted = {chain.name for chain in table.chains}
        stale = [chain for chain in state.own_chains(name, owned) if chain not in wanted]
        sections.append(
            _section(
                name,
                [
                    *(f":{chain} - [0:0]" for chain in stale),
                    *_additions(table, removals=[f"-D {hook} {rule}" for hook, rule in state.own_jumps(name, owned)]),
                    *(f"-X {chain}" for chain in stale),
                ],
            )
        )
    return "".join(sections)


def dry_run_text(plans: Iterable[Plan], routed: bool = False) -> str:
    """Return what a first application would do; each part is valid input for the program named above it.

    With `routed`, TPROXY's policy routing is among it.
    """
    parts = ["# Nothing is applied. Each part is the input of one run of the program that it names.\n"]
    for plan in plans:
        parts += [f"# {plan.family.value}: {command}\n" for command in preparations(plan.family, routed)]
        parts.append(f"# {plan.family.value}: {plan.family.program}-restore --noflush\n{plan_text(plan)}")
    return "".join(parts)


def dry_run_json(plans: Iterable[Plan], routed: bool = False) -> str:
    """Return the same as one JSON document: family → what is done before, and the tables with their rules."""
    families = {
        plan.family.value: {
            "before": list(preparations(plan.family, routed)),
            "program": f"{plan.family.program}-restore --noflush",
            "tables": {table.name: _table_as_json(table) for table in plan.tables},
            "text": plan_text(plan),
        }
        for plan in plans
    }
    return json.dumps({"families": families}, indent=2) + "\n"


def preparations(family: Family, routed: bool) -> tuple[str, ...]:
    """The commands of `ip` that do what no packet filter can."""
    ip = f"ip -{family.version}"
    address = (f"{ip} address add {names.INBOUND_SOURCE_V6}/128 dev lo",) if family is Family.V6 else ()
    rule = f"{ip} rule add priority {names.TPROXY_PRIORITY} fwmark {names.TPROXY_MARK:#x} lookup {names.TPROXY_TABLE}"
    route = f"{ip} route add local default dev lo table {names.TPROXY_TABLE}"
    return (*address, route, rule) if routed else address


def _table_as_json(table: Table) -> dict[str, object]:
    return {
        "chains": {chain.name: [_rule_as_json(rule) for rule in chain.rules] for chain in table.chains},
        "jumps": [{"from": jump.hook, **_rule_as_json(jump.rule)} for jump in table.jumps],
    }


def _rule_as_json(rule: Rule) -> dict[str, object]:
    return {"reason": rule.reason, "target": rule.target, "rule": rule_text(rule)}


def _additions(table: Table, removals: Iterable[str] = ()) -> list[str]:
    hooks = dict.fromkeys(jump.hook for jump in table.jumps)
    jumps = {hook: [jump.rule for jump in table.jumps if jump.hook == hook] for hook in hooks}
    return [
        *(f":{chain.name} - [0:0]" for chain in table.chains),
        *removals,
        *(f"-A {chain.name} {rule_text(rule)}" for chain in table.chains for rule in chain.rules),
        # Last, as a reader expects it: what a jump leads to stands above it.
        *(
            f"-I {hook} {place} {rule_text(rule)}"
            for hook, rules in jumps.items()
            for place, rule in enumerate(rules, 1)
        ),
    ]


def _section(table: str, lines: Iterable[str]) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT", ""])


def _place(match: Match) -> int:
    return _FIRST.index(match.option) if match.option in _FIRST else len(_FIRST)


def _match_words(match: Match) -> list[str]:
    return [*(["!"] if match.negated else []), match.option, match.value]


def _quoted(reason: str) -> str:
    # iptables-save quotes only what needs it; reasons are our own words, without quotes or backslashes.
    return f'"{reason}"'
