"""TPROXY's policy routing: packets with the sidecar's mark are delivered inside this network namespace.

A rule sends what carries the mark to a table of its own, whose one route says that every address is local. The second
door to pyroute2, beside addresses.py and routes.py.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from init.rules import Family
from mesh import names
from mesh.errors import UserError

_LOOPBACK_INDEX: Final = 1  # the kernel registers lo first in every network namespace, with this index
_RTN_LOCAL: Final = 2  # linux/rtnetlink.h
_ADDRESSES: Final = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


def missing_routing(family: Family) -> tuple[str, ...]:
    """Return one line for each part of `family`'s policy routing that does not stand."""
    with IPRoute() as route:
        found = ((_has_route, "the local route", "table"), (_has_rule, "the rule", "fwmark"))
        numbers = {"table": names.TPROXY_TABLE, "fwmark": f"{names.TPROXY_MARK:#x}"}
        return tuple(
            f"{what} of {word} {numbers[word]} is missing" for has, what, word in found if not has(route, family)
        )


def left_routing(family: Family) -> tuple[str, ...]:
    """Return one line for each part of `family`'s policy routing that stands."""
    with IPRoute() as route:
        lines = []
        if _has_rule(route, family):
            lines.append(f"the rule of fwmark {names.TPROXY_MARK:#x} is left over")
        if _has_route(route, family):
            lines.append(f"the local route of table {names.TPROXY_TABLE} is left over")
        return tuple(lines)


def add_routing(family: Family) -> bool:
    """Put the rule and its route in place; return whether that changed anything. Raises UserError."""
    with IPRoute() as route:
        # The route first: a rule that leads to an empty table is passed over.
        changed = not _has_route(route, family) and _change(route, "route", "add", family, errno.EEXIST)
        return (not _has_rule(route, family) and _change(route, "rule", "add", family, errno.EEXIST)) or changed


def remove_routing(family: Family) -> bool:
    """Take the rule and its route away; return whether that changed anything. Raises UserError."""
    with IPRoute() as route:
        changed = _has_rule(route, family) and _change(route, "rule", "del", family, errno.ENOENT)
        return (_has_route(route, family) and _change(route, "route", "del", family, errno.ESRCH)) or changed


def _has_rule(route: IPRoute, family: Family) -> bool:
    return any(
        (rule.get("FRA_PRIORITY"), rule.get("FRA_FWMARK"), rule.get("FRA_TABLE"))
        == (names.TPROXY_PRIORITY, names.TPROXY_MARK, names.TPROXY_TABLE)
        for rule in route.get_rules(family=_ADDRESSES[family])
        # A kernel without IPv6 answers with the rules of every family that it has.
        if rule["family"] == _ADDRESSES[family]
    )


def _has_route(route: IPRoute, family: Family) -> bool:
    return any(
        found["family"] == _ADDRESSES[family]
        and (found["type"], found["dst_len"], found.get("RTA_OIF")) == (_RTN_LOCAL, 0, _LOOPBACK_INDEX)
        for found in route.get_routes(family=_ADDRESSES[family], table=names.TPROXY_TABLE)
    )


def _change(route: IPRoute, what: str, command: str, family: Family, unneeded: int) -> bool:
    # `unneeded` is the kernel's answer where another process was faster.
    try:
        if what == "rule":
            rule = {"priority": names.TPROXY_PRIORITY, "fwmark": names.TPROXY_MARK, "table": names.TPROXY_TABLE}
            route.rule(command, family=_ADDRESSES[family], **rule)
        else:
            local = {"type": "local", "oif": _LOOPBACK_INDEX, "table": names.TPROXY_TABLE}
            # Addresses of IPv6 have scopes of their own; a route has none (RFC 4007).
            scope = {"scope": "host"} if family is Family.V4 else {}
            route.route(command, family=_ADDRESSES[family], dst=f"{family.unspecified}/0", **local, **scope)
    except NetlinkError as error:
        if error.code == unneeded:
            return False
        raise UserError(_explanation(what, command, family, error.code)) from error
    return True


def _explanation(what: str, command: str, family: Family, code: int) -> str:
    failed = f"cannot {command} TPROXY's {what} of {family.value}"
    if code == errno.EPERM:
        return f"{failed}: this needs the capability NET_ADMIN; run it as root"
    if code in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return f"{failed}: the kernel has no policy routing for it; use --inbound-mode redirect"
    return f"{failed}: {os.strerror(code)}; look at `ip -{family.version} {what} show`, or use --inbound-mode redirect"
