"""Making the packet filter hold a plan, finding out whether it does, and taking all of ours away again.

All three are one idea: a list of targets, each a packet filter and the plan that it should hold. What is not
wanted (the other back end, IPv6 where it is off, everything at clean-up) is a target with an empty plan.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from init import addresses
from init.backend import FilterRefused, Kind, PacketFilter, choose_kind, find_filters, require_permission
from init.config import BackendChoice, InterceptionConfig, IPv6Mode
from init.plan import GUARD, Family, Plan, empty_plan, make_plan, with_guard
from init.render import transaction
from init.state import State, differences
from mesh import names
from mesh.errors import UserError

# Somebody else may change rules between our look and our change; a second look settles that, five mean a
# quarrel.
ATTEMPTS: Final = 5
PAUSE: Final = 0.1  # seconds before looking again, times the number of attempts so far


@dataclass(frozen=True, slots=True)
class Target:
    """What one packet filter should hold of ours."""

    filter: PacketFilter
    plan: Plan


@dataclass(frozen=True, slots=True)
class Goal:
    """Everything that should be so: the rules; whether lo has the sidecar's IPv6 source (None: leave it)."""

    targets: tuple[Target, ...]
    ipv6_source: bool | None
    kind: Kind | None = None
    notice: str = ""  # something the user should know, though nothing failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done."""

    goal: Goal
    changed: bool


def apply(config: InterceptionConfig) -> Outcome:
    """Make this network namespace hold the rules of `config`; do nothing where it does. Raises UserError.

    Everything is read again afterwards: an outcome means that the rules were seen to stand.
    """
    return _reach(_goal(config))


def check(config: InterceptionConfig) -> tuple[str, ...]:
    """Return one line for each difference between this namespace and `config`; none when there is none.

    Changes nothing. Raises UserError.
    """
    goal = _goal(config)
    lines = [
        line if target.filter.kind is goal.kind else f"{line} (in the other back end, {target.filter.kind.value})"
        for target, state in _read(goal.targets).items()
        for found in differences(target.plan, state).values()
        for line in found
    ]
    if goal.ipv6_source and not addresses.has_inbound_source():
        lines.append(f"ipv6 lo: the address {names.INBOUND_SOURCE_V6}/128 is missing")
    return tuple(lines)


def cleanup() -> Outcome:
    """Remove all of ours from this namespace, in both back ends, and nothing else. Raises UserError."""
    require_permission()
    filters = find_filters()
    states, refused = _look(filters)
    if not states:
        # Nobody here can see any rule, so nobody may claim that there are none.
        choose_kind(BackendChoice.AUTO, filters, states)
        raise next(iter(refused.values()))
    targets = tuple(Target(filter_, empty_plan(filter_.family)) for filter_ in states)
    return _reach(Goal(targets, ipv6_source=False))


def plans_for_dry_run(config: InterceptionConfig) -> tuple[Plan, ...]:
    """Return the plans that `apply` would put in place. Needs no permission and no program."""
    ipv6 = config.ipv6 is IPv6Mode.ON or (config.ipv6 is IPv6Mode.AUTO and bool(addresses.ipv6_addresses()))
    return tuple(make_plan(config, family) for family in Family if family is Family.V4 or ipv6)


def _goal(config: InterceptionConfig) -> Goal:
    require_permission()
    filters = find_filters()
    states, refused = _look(filters)
    kind = choose_kind(config.backend, filters, states)
    mine = {filter_.family: filter_ for filter_ in filters if filter_.kind is kind}
    ipv6, notice = _wants_ipv6(config.ipv6, mine.get(Family.V6), refused)
    wanted = {mine[family] for family in Family if family is Family.V4 or ipv6}
    for filter_ in wanted & refused.keys():
        raise refused[filter_]
    targets = tuple(
        Target(filter_, make_plan(config, filter_.family) if filter_ in wanted else empty_plan(filter_.family))
        # A filter that cannot be read where we may read everything is one that the kernel does not have.
        for filter_ in states
    )
    return Goal(targets, True if ipv6 else None, kind, notice)


def _look(
    filters: Sequence[PacketFilter],
) -> tuple[dict[PacketFilter, State], dict[PacketFilter, FilterRefused]]:
    states: dict[PacketFilter, State] = {}
    refused: dict[PacketFilter, FilterRefused] = {}
    for filter_ in filters:
        try:
            states[filter_] = filter_.read()
        except FilterRefused as error:
            refused[filter_] = error
    return states, refused


def _wants_ipv6(
    mode: IPv6Mode, filter_: PacketFilter | None, refused: Mapping[PacketFilter, FilterRefused]
) -> tuple[bool, str]:
    """Return whether IPv6 is intercepted, and a notice. Raises UserError where it must be and cannot."""
    found = addresses.ipv6_addresses()
    if mode is IPv6Mode.OFF or (mode is IPv6Mode.AUTO and not found):
        return False, ""
    if filter_ is None:
        problem = "ip6tables is not installed"
    else:
        refusal = refused.get(filter_) or filter_.refusal()
        if refusal is None:
            return True, ""
        problem = str(refusal)
    # Every interface gets a link-local address where the kernel has IPv6 at all; that makes no IPv6 pod.
    reachable = [address for address in found if not address.is_link_local]
    if mode is IPv6Mode.ON or reachable:
        why = f"the pod has {reachable[0]}" if reachable else "--ipv6 on asks for it"
        raise UserError(f"IPv6 cannot be intercepted, but {why}: {problem}; mend that, or say --ipv6 off")
    return False, f"IPv6 is not intercepted: only link-local addresses here, and {problem}"


def _reach(goal: Goal) -> Outcome:
    # The address first: once connections are captured, the sidecar dials its application from it.
    changed = addresses.add_inbound_source() if goal.ipv6_source else False
    changed = _converge(goal.targets) or changed
    if goal.ipv6_source is False:
        changed = addresses.remove_inbound_source() or changed
    return Outcome(goal, changed)


def _converge(targets: Sequence[Target]) -> bool:
    """Change what differs from `targets` until nothing does; return whether anything was changed."""
    failure: FilterRefused | None = None
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        differing = _differing(targets)
        if not differing:
            return attempt > 0
        try:
            _swap(targets, differing)
        except FilterRefused as error:
            failure = error  # perhaps somebody changed what we had read; the next look decides
    differing = _differing(targets)
    if not differing:
        return True
    raise UserError(_why_not(differing, failure, _read(targets)))


def _swap(targets: Sequence[Target], differing: Mapping[Target, Mapping[str, tuple[str, ...]]]) -> None:
    """Bring the differing targets to their plans.

    One table of one family changes in one transaction. Where more is to change, the guard stands in front
    until the last of it has: it is raised, everything is swapped behind it, it is lowered. If anything fails
    in between it stays up; a pod that cannot connect is better than one that sends plaintext.
    """
    transactions = sum(len(tables) for tables in differing.values())
    removal = not any(target.plan.tables for target in targets)
    if transactions == 1 or removal:
        for target in differing:
            _put(target.filter, target.plan)
        return
    guarded = [target for target in targets if target.plan.tables]
    for target in guarded:
        _raise_guard(target.filter)
    for target in guarded:
        _put(target.filter, with_guard(target.plan))
    for target in differing:
        if target not in guarded:
            _put(target.filter, target.plan)
    for target in guarded:
        _put(target.filter, target.plan)


def _raise_guard(filter_: PacketFilter) -> None:
    """Put the guard in front of whatever stands now, in one transaction that touches nothing else."""
    guard = with_guard(empty_plan(filter_.family))
    filter_.restore(transaction(guard, filter_.read().only(GUARD), [table.name for table in guard.tables]))


def _put(filter_: PacketFilter, plan: Plan) -> None:
    state = filter_.read()
    tables = differences(plan, state)
    if tables:
        filter_.restore(transaction(plan, state, tables))


def _read(targets: Sequence[Target]) -> dict[Target, State]:
    return {target: target.filter.read() for target in targets}


def _differing(targets: Sequence[Target]) -> dict[Target, dict[str, tuple[str, ...]]]:
    found = {target: differences(target.plan, state) for target, state in _read(targets).items()}
    return {target: tables for target, tables in found.items() if tables}


def _why_not(
    differing: Mapping[Target, Mapping[str, tuple[str, ...]]],
    failure: FilterRefused | None,
    states: Mapping[Target, State],
) -> str:
    first = next(line for tables in differing.values() for lines in tables.values() for line in lines)
    because = str(failure) if failure else "something else changes the rules at the same time"
    guarded = any(GUARD in state.own_chains(table) for state in states.values() for table in state.tables)
    guard = (
        "; until it succeeds (or --cleanup runs) the guard drops new connections, so that nothing leaks"
        if guarded
        else ""
    )
    return f"the rules do not stand ({first}): {because}; mend that and run qbitel init again{guard}"
