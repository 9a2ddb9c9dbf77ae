"""What should be so in this network namespace: for each packet filter its plan, and what no packet filter can do.

Applying, checking and taking away are one idea: a list of targets, each a packet filter and the plan that it should
hold. What is not wanted (the other back end, IPv6 where it is off, everything at clean-up) is a target with an empty
plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from init import addresses, native
from init.backend import FilterRefused, Kind, PacketFilter, choose_kind, find_filters, require_permission
from init.config import BackendChoice, InboundMode, InterceptionConfig, IPv6Mode
from init.foreign import EVERY_MESH, NativeTable, foreign_meshes
from init.plan import make_plan
from init.rules import OURS, Family, Plan, empty_plan
from init.state import State
from mesh.errors import UserError


@dataclass(frozen=True, slots=True)
class Target:
    """What one packet filter should hold of ours."""

    filter: PacketFilter
    plan: Plan


@dataclass(frozen=True, slots=True)
class Goal:
    """Everything that should be so.

    `ipv6_source` is whether lo has the sidecar's IPv6 source (None: leave it); `routed` are the families with TPROXY's
    policy routing, which no other family has; chains that start with one of `owned` are ours to remove, and so are
    `native_tables`, which nft made for another mesh.
    """

    targets: tuple[Target, ...]
    ipv6_source: bool | None
    routed: frozenset[Family] = frozenset()
    owned: tuple[str, ...] = OURS
    native_tables: tuple[NativeTable, ...] = ()
    kind: Kind | None = None
    notice: str = ""  # something the user should know, though nothing failed

    @property
    def reconciles(self) -> bool:
        """Whether what other meshes left is ours to remove."""
        return self.owned != OURS


def goal_of(config: InterceptionConfig, *, reconcile: bool) -> Goal:
    """Return what `config` means here. With `reconcile` the interception of other meshes is ours to remove.

    Raises UserError: where it cannot be had here, or, without `reconcile`, where another mesh intercepts already.
    """
    require_permission()
    filters = find_filters()
    states, refused = _look(filters)
    tables = native.read_tables()
    others = foreign_meshes(states.values(), tables)
    if others and not reconcile:
        raise UserError(
            f"{' and '.join(others)} intercepts this pod already, and two meshes cannot share it: take the pod out of "
            "the other mesh, or remove the other's rules with --reconcile"
        )
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
    routed = config.inbound_mode is InboundMode.TPROXY
    return Goal(
        targets,
        ipv6_source=True if ipv6 else None,
        routed=frozenset(filter_.family for filter_ in wanted) if routed else frozenset(),
        owned=EVERY_MESH if reconcile else OURS,
        native_tables=tables,
        kind=kind,
        notice=notice,
    )


def empty_goal(*, reconcile: bool) -> Goal:
    """Return the wish that nothing of ours is here; with `reconcile`, nothing of other meshes either.

    Raises UserError where nobody could see whether that is so.
    """
    require_permission()
    filters = find_filters()
    states, refused = _look(filters)
    if not states:
        # Nobody here can see any rule, so nobody may claim that there are none.
        choose_kind(BackendChoice.AUTO, filters, states)
        raise next(iter(refused.values()))
    for refusal in refused.values():
        # Rules that nobody could see would be left, and reported as removed.
        if not refusal.absent:
            raise refusal
    targets = tuple(Target(filter_, empty_plan(filter_.family)) for filter_ in states)
    if not reconcile:
        return Goal(targets, ipv6_source=False)
    return Goal(targets, ipv6_source=False, owned=EVERY_MESH, native_tables=native.read_tables())


def plans_for_dry_run(config: InterceptionConfig) -> tuple[Plan, ...]:
    """Return the plans that `apply` would put in place. Needs no permission and no program."""
    ipv6 = config.ipv6 is IPv6Mode.ON or (config.ipv6 is IPv6Mode.AUTO and bool(addresses.ipv6_addresses()))
    return tuple(make_plan(config, family) for family in Family if family is Family.V4 or ipv6)


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
