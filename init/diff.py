"""The difference between what a packet filter holds of ours and a plan, as a unified diff. Pure.

Rules that mean the same are shown in our spelling on both sides, so that only real differences are left.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from init.render import rule_text
from init.rules import OURS, Plan, Table
from init.state import State, differences, meaning


def difference_text(plan: Plan, state: State, where: str, owned: Collection[str] = OURS) -> str:
    """Return what applying `plan` would take away (-) and put in place (+); "" when it stands.

    `where` names the back end. Ours are the chains that start with one of `owned`; of the rules of others only those
    are shown that stand in a built-in chain before ours.
    """
    planned = {table.name: table for table in plan.tables}
    parts: list[str] = []
    for name in differences(plan, state, owned):
        table = planned.get(name, Table(name, (), ()))
        title = f"{plan.family.value} {name} ({where})"
        lines = difflib.unified_diff(
            _present(table, state, owned),
            _wanted(table, state, owned),
            f"present {title}",
            f"wanted {title}",
            lineterm="",
        )
        parts += [f"{line}\n" for line in lines]
    return "".join(parts)


def _wanted(table: Table, state: State, owned: Collection[str]) -> list[str]:
    lines: list[str] = []
    for chain in sorted(table.chains, key=lambda chain: chain.name):
        lines += [f":{chain.name}", *(f"-A {chain.name} {rule_text(rule)}" for rule in chain.rules)]
    for hook in _hooks(table, state, owned):
        standing = _up_to_the_last_of_ours(hook, table, state, owned)
        foreign = [rule for rule in standing if not state.owns(hook, rule, owned)]
        wanted = [rule_text(jump.rule) for jump in table.jumps if jump.hook == hook]
        lines += [f"-A {hook} {rule}" for rule in (*wanted, *foreign)]
    return lines


def _present(table: Table, state: State, owned: Collection[str]) -> list[str]:
    rules = [rule for chain in table.chains for rule in chain.rules] + [jump.rule for jump in table.jumps]
    spelling = {meaning(text): text for text in map(rule_text, rules)}
    present = state.tables.get(table.name, {})
    lines: list[str] = []
    for chain in sorted(state.own_chains(table.name, owned)):
        lines += [f":{chain}", *(f"-A {chain} {spelling.get(meaning(rule), rule)}" for rule in present[chain])]
    for hook in _hooks(table, state, owned):
        standing = _up_to_the_last_of_ours(hook, table, state, owned)
        lines += [f"-A {hook} {spelling.get(meaning(rule), rule)}" for rule in standing]
    return lines


def _hooks(table: Table, state: State, owned: Collection[str]) -> list[str]:
    return sorted({*(jump.hook for jump in table.jumps), *(hook for hook, _ in state.own_jumps(table.name, owned))})


def _up_to_the_last_of_ours(hook: str, table: Table, state: State, owned: Collection[str]) -> tuple[str, ...]:
    rules = state.tables.get(table.name, {}).get(hook, ())
    count = max((place for place, rule in enumerate(rules, 1) if state.owns(hook, rule, owned)), default=0)
    return rules[:count]
