"""Every check there is, in the order in which they are shown; and which are run when."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any, Final

from cli.checks import before, cluster, control, machine, manifests, roles, services, sidecars, trust, webhook
from cli.checks.findings import Check, Group
from mesh.errors import UserError

MACHINE: Final = machine.CHECKS
_OF_CLUSTER: Final = (
    *cluster.CHECKS,
    *before.CHECKS,
    *control.CHECKS,
    *roles.CHECKS,
    *webhook.CHECKS,
    *trust.CHECKS,
    *sidecars.CHECKS,
    *services.CHECKS,
)
_GROUPS: Final = tuple(Group)
# A file has checks of several groups where they are about one thing.
CLUSTER: Final = tuple(sorted(_OF_CLUSTER, key=lambda check: _GROUPS.index(check.group)))
FILES: Final = manifests.CHECKS
EVERY: Final[tuple[Check[Any], ...]] = (*MACHINE, *CLUSTER, *FILES)

# What a mode of the command looks at.
LOCAL: Final = frozenset({Group.MACHINE})
PRE: Final = frozenset({Group.MACHINE, Group.CLUSTER, Group.BEFORE})
INSTALLED: Final = frozenset(
    {Group.MACHINE, Group.CLUSTER, Group.CONTROL, Group.WEBHOOK, Group.TRUST, Group.DATA}
)  # fmt: skip
PROXY: Final = frozenset({Group.DATA})
OF_FILES: Final = frozenset({Group.FILES})

# Whoever asks for any check of a cluster, or of the mesh in it, hears where there is none.
REQUIRED: Final = ("api-reachable", "control-namespace")


def selected(groups: Collection[Group], only: Iterable[str], skip: Iterable[str]) -> frozenset[str]:
    """The names of the checks of `groups` that are wanted. Raises UserError for a name that there is not."""
    wanted, unwanted = _names(only), _names(skip)
    of_mode = {check.name for check in EVERY if check.group in groups}
    if missing := sorted(wanted - of_mode):
        raise UserError(f"--only: {missing[0]} is not looked at here; see `qbitel check --list` for when it is")
    return frozenset((wanted or of_mode) - unwanted)


def _names(given: Iterable[str]) -> set[str]:
    """Names of checks, and those of groups spelt out."""
    groups = {group.value: {check.name for check in EVERY if check.group is group} for group in Group}
    known = {check.name: {check.name} for check in EVERY} | groups
    found: set[str] = set()
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; do you mean {near[0]}?" if near else "; `qbitel check --list` has them all"
            raise UserError(f"{name[:80]!r} is no check{hint}")
        found |= known[name]
    return found
