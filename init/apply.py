"""Making this network namespace as it should be, finding out whether it is, and taking all of ours away again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from init import addresses, native, policy_routing
from init.backend import FilterRefused, PacketFilter
from init.config import InterceptionConfig
from init.diff import difference_text
from init.foreign import mesh_of_table
from init.goal import Goal, Target, empty_goal, goal_of
from init.guard import GUARD, GUARD_TABLE, with_guard
from init.render import transaction
from init.rules import Family, Plan, empty_plan
from init.state import State, differences
from mesh import names
from mesh.errors import UserError

# Somebody else may change rules between our look and our change; a second look settles that, five mean a quarrel.
ATTEMPTS: Final = 5
PAUSE: Final = 0.1  # seconds before looking again, times the number of attempts so far

Found: TypeAlias = Mapping[Target, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done."""

    goal: Goal
    changed: bool


def apply(config: InterceptionConfig, *, reconcile: bool = False) -> Outcome:
    """Make this network namespace hold the rules of `config`; do nothing where it does. Raises UserError.

    With `reconcile` the interception of other meshes is removed; without it, it is an error. Everything is read again
    afterwards: an outcome means that the rules were seen to stand.
    """
    return _reach(goal_of(config, reconcile=reconcile))


def check(config: InterceptionConfig) -> tuple[str, ...]:
    """Return one line for each difference between this namespace and `config`; none when there is none.

    Interception of other meshes is a difference. Changes nothing. Raises UserError.
    """
    goal = goal_of(config, reconcile=True)
    lines = [
        line if target.filter.kind is goal.kind else f"{line} (in the other back end, {target.filter.kind.value})"
        for target, tables in _differing(goal).items()
        for found in tables.values()
        for line in found
    ]
    return (*lines, *_missing_besides(goal))


def diff(config: InterceptionConfig) -> str:
    """Return what applying `config` would change, as unified diffs; "" when it would change nothing.

    What is no rule (the address, policy routing) is a line that starts with `#`. Changes nothing. Raises UserError.
    """
    goal = goal_of(config, reconcile=True)
    parts = [
        difference_text(target.plan, state, target.filter.kind.value, goal.owned)
        for target, state in _read(goal).items()
    ]
    return "".join([*parts, *(f"# {line}\n" for line in _missing_besides(goal))])


def cleanup(*, reconcile: bool = False) -> Outcome:
    """Remove all of ours from this namespace, in both back ends, and nothing else. Raises UserError.

    With `reconcile` the rules of other meshes go too.
    """
    return _reach(empty_goal(reconcile=reconcile))


def _missing_besides(goal: Goal) -> list[str]:
    """One line for each thing that is not so, besides the rules."""
    lines = []
    if goal.ipv6_source and not addresses.has_inbound_source():
        lines.append(f"ipv6 lo: the address {names.INBOUND_SOURCE_V6}/128 is missing")
    for family in Family:
        look = policy_routing.missing_routing if family in goal.routed else policy_routing.left_routing
        lines += [f"{family.value} routing: {line}" for line in look(family)]
        if goal.reconciles:
            left = policy_routing.left_routing(family, policy_routing.ISTIO)
            lines += [f"{family.value} routing of Istio: {line}" for line in left]
    lines += [f"nft {table}: the table of {mesh_of_table(table.name)} is left over" for table in goal.native_tables]
    return lines


def _reach(goal: Goal) -> Outcome:
    # What connections need once they are captured, before they are; what nothing needs any more, afterwards.
    changed = addresses.add_inbound_source() if goal.ipv6_source else False
    for family in sorted(goal.routed, key=lambda family: family.version):
        changed = policy_routing.add_routing(family) or changed
    changed = _converge(goal) or changed
    # Theirs captures until ours stands, so that nothing goes past both.
    if goal.native_tables:
        changed = native.remove_tables() or changed
    for family in Family:
        if family not in goal.routed:
            changed = policy_routing.remove_routing(family) or changed
        if goal.reconciles:
            changed = policy_routing.remove_routing(family, policy_routing.ISTIO) or changed
    if goal.ipv6_source is False:
        changed = addresses.remove_inbound_source() or changed
    return Outcome(goal, changed)


def _converge(goal: Goal) -> bool:
    """Change what differs from `goal` until nothing does; return whether anything was changed."""
    failure: FilterRefused | None = None
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        differing = _differing(goal)
        if not differing:
            return attempt > 0
        try:
            _swap(goal, differing)
        except FilterRefused as error:
            failure = error  # perhaps somebody changed what we had read; the next look decides
    differing = _differing(goal)
    if not differing:
        return True
    raise UserError(_why_not(differing, failure, _read(goal)))


def _swap(goal: Goal, differing: Found) -> None:
    """Bring the differing targets to their plans.

    One table of one family changes in one transaction. Where more is to change, the guard stands in front
    until the last of it has: it is raised, everything is swapped behind it, it is lowered. If anything fails
    in between it stays up; a pod that cannot connect is better than one that sends plaintext.
    """
    transactions = sum(len(tables) for tables in differing.values())
    removal = not any(target.plan.tables for target in goal.targets)
    if transactions == 1 or removal:
        for target in differing:
            _put(goal, target.filter, target.plan)
        return
    guarded = [target for target in goal.targets if target.plan.tables]
    for target in guarded:
        _raise_guard(target.filter)
    for target in guarded:
        _put(goal, target.filter, with_guard(target.plan))
    for target in differing:
        if target not in guarded:
            _put(goal, target.filter, target.plan)
    for target in guarded:
        _put(goal, target.filter, target.plan)


def _raise_guard(filter_: PacketFilter) -> None:
    """Put the guard in front of whatever stands now, in one transaction that touches nothing else."""
    guard = with_guard(empty_plan(filter_.family))
    filter_.restore(transaction(guard, filter_.read().only(GUARD), [GUARD_TABLE.name]))


def _put(goal: Goal, filter_: PacketFilter, plan: Plan) -> None:
    state = filter_.read()
    tables = differences(plan, state, goal.owned)
    if tables:
        filter_.restore(transaction(plan, state, tables, goal.owned))


def _read(goal: Goal) -> dict[Target, State]:
    return {target: target.filter.read() for target in goal.targets}


def _differing(goal: Goal) -> dict[Target, dict[str, tuple[str, ...]]]:
    found = {target: differences(target.plan, state, goal.owned) for target, state in _read(goal).items()}
    return {target: tables for target, tables in found.items() if tables}


def _why_not(differing: Found, failure: FilterRefused | None, states: Mapping[Target, State]) -> str:
    first = next(line for tables in differing.values() for lines in tables.values() for line in lines)
    because = str(failure) if failure else "something else changes the rules at the same time"
    guarded = any(GUARD in state.own_chains(table) for state in states.values() for table in state.tables)
    guard = (
        "; until it succeeds (or --cleanup runs) the guard drops new connections, so that nothing leaks"
        if guarded
        else ""
    )
    return f"the rules do not stand ({first}): {because}; mend that and run qbitel init again{guard}"
