"""TPROXY's policy routing: packets with the sidecar's mark are delivered inside this network namespace.

A rule sends what carries the mark to a table of its own, whose one route says that every address is local. The second
door to pyroute2, beside addresses.py and routes.py.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, replace
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from init import istio
from init.rules import Family
from mesh import names
from mesh.errors import UserError

_LOOPBACK_INDEX: Final = 1  # the kernel registers lo first in every network namespace, with this index
_RTN_LOCAL: Final = 2  # linux/rtnetlink.h
_ADDRESSES: Final = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Routing:
    """A mark, the table that packets with it are sent to, and the priority of the rule that does so (None: any)."""

    mark: int
    table: int
    priority: int | None


OURS: Final = Routing(names.TPROXY_MARK, names.TPROXY_TABLE, names.TPROXY_PRIORITY)
# istio-iptables names no priority, so that the kernel chooses one.
ISTIO: Final = Routing(istio.ROUTED_MARK, istio.ROUTED_TABLE, None)


def missing_routing(family: Family) -> tuple[str, ...]:
    """Return one line for each part of `family`'s policy routing that does not stand."""
    with IPRoute() as route:
        lines = []
        if not _has_route(route, family, OURS):
            lines.append(f"the local route of table {OURS.table} is missing")
        if not _rules(route, family, OURS):
            lines.append(f"the rule of fwmark {OURS.mark:#x} is missing")
        return tuple(lines)


def left_routing(family: Family, routing: Routing = OURS) -> tuple[str, ...]:
    """Return one line for each part of `family`'s policy routing that stands."""
    with IPRoute() as route:
        lines = []
        if _rules(route, family, routing):
            lines.append(f"the rule of fwmark {routing.mark:#x} is left over")
        if _has_route(route, family, routing):
            lines.append(f"the local route of table {routing.table} is left over")
        return tuple(lines)


def add_routing(family: Family) -> bool:
    """Put the rule and its route in place; return whether that changed anything. Raises UserError."""
    with IPRoute() as route:
        # The route first: a rule that leads to an empty table is passed over.
        changed = not _has_route(route, family, OURS) and _change_route(route, "add", family, OURS, errno.EEXIST)
        return (not _rules(route, family, OURS) and _change_rule(route, "add", family, OURS, errno.EEXIST)) or changed


def remove_routing(family: Family, routing: Routing = OURS) -> bool:
    """Take the rule and its route away; return whether that changed anything. Raises UserError."""
    with IPRoute() as route:
        changed = False
        for priority in _rules(route, family, routing):
            found = replace(routing, priority=priority)
            changed = _change_rule(route, "del", family, found, errno.ENOENT) or changed
        if _has_route(route, family, routing):
            changed = _change_route(route, "del", family, routing, errno.ESRCH) or changed
        return changed


def _rules(route: IPRoute, family: Family, routing: Routing) -> list[int]:
    """The priorities of the rules that stand."""
    return [
        rule.get("FRA_PRIORITY")
        for rule in route.get_rules(family=_ADDRESSES[family])
        # A kernel without IPv6 answers with the rules of every family that it has.
        if rule["family"] == _ADDRESSES[family]
        and (rule.get("FRA_FWMARK"), rule.get("FRA_TABLE")) == (routing.mark, routing.table)
        and routing.priority in (None, rule.get("FRA_PRIORITY"))
    ]


def _has_route(route: IPRoute, family: Family, routing: Routing) -> bool:
    return any(
        found["family"] == _ADDRESSES[family]
        and (found["type"], found["dst_len"], found.get("RTA_OIF")) == (_RTN_LOCAL, 0, _LOOPBACK_INDEX)
        for found in route.get_routes(family=_ADDRESSES[family], table=routing.table)
    )


def _change_rule(route: IPRoute, command: str, family: Family, routing: Routing, unneeded: int) -> bool:
    # `unneeded` is the kernel's answer where another process was faster.
    rule = {"priority": routing.priority, "fwmark": routing.mark, "table": routing.table}
    try:
        route.rule(command, family=_ADDRESSES[family], **rule)
    except NetlinkError as error:
        return _refused("rule", command, family, error, unneeded)
    return True


def _change_route(route: IPRoute, command: str, family: Family, routing: Routing, unneeded: int) -> bool:
    local = {"type": "local", "oif": _LOOPBACK_INDEX, "table": routing.table}
    # Addresses of IPv6 have scopes of their own; a route has none (RFC 4007).
    scope = {"scope": "host"} if family is Family.V4 else {}
    try:
        route.route(command, family=_ADDRESSES[family], dst=f"{family.unspecified}/0", **local, **scope)
    except NetlinkError as error:
        return _refused("route", command, family, error, unneeded)
    return True


def _refused(what: str, command: str, family: Family, error: NetlinkError, unneeded: int) -> bool:
    if error.code == unneeded:
        return False
    raise UserError(_explanation(what, command, family, error.code)) from error


def _explanation(what: str, command: str, family: Family, code: int) -> str:
    failed = f"cannot {command} TPROXY's {what} of {family.value}"
    if code == errno.EPERM:
        return f"{failed}: this needs the capability NET_ADMIN; run it as root"
    if code in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return f"{failed}: the kernel has no policy routing for it; use --inbound-mode redirect"
    return f"{failed}: {os.strerror(code)}; look at `ip -{family.version} {what} show`, or use --inbound-mode redirect"
