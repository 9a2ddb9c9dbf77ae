"""Which way the kernel would send a packet of this process. The third door to pyroute2; asking needs no privilege."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from init.rules import Family

_RTN_UNICAST: Final = 1  # linux/rtnetlink.h
_RTN_LOCAL: Final = 2
_LOOPBACK_INDEX: Final = 1  # the kernel registers lo first in every network namespace, with this index
_FAMILIES: Final = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Route:
    """The interface by which packets to an address leave; `local` where they stay in this network namespace."""

    interface: str
    local: bool


def route_to(family: Family, host: str) -> Route | None:
    """Return the route to the address `host`; None where there is none for connections."""
    try:
        with IPRoute() as route:
            # The kernel chooses by the user, too (ip rule … uidrange), and takes the one who asks.
            answer = next(iter(route.route("get", family=_FAMILIES[family], dst=host)))
        if answer["type"] not in (_RTN_UNICAST, _RTN_LOCAL):  # broadcast, multicast
            return None
        index = answer.get("RTA_OIF")
        return Route(socket.if_indextoname(index), answer["type"] == _RTN_LOCAL or index == _LOOPBACK_INDEX)
    except (NetlinkError, OSError):
        # No route at all, one that says "blackhole" or "unreachable", or an interface that is gone meanwhile.
        return None
