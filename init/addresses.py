"""The addresses of this network namespace: has it IPv6, and the sidecar's source on lo. The door to pyroute2.

For IPv4 there is nothing to add: all of 127.0.0.0/8 is local already (RFC 1122 §3.2.1.3), IPv6 has ::1 alone.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mesh import names
from mesh.errors import UserError

_SOURCE: Final = ipaddress.IPv6Address(names.INBOUND_SOURCE_V6)
_LOOPBACK_INDEX: Final = 1  # the kernel registers lo first in every network namespace, with this index


def ipv6_addresses() -> tuple[ipaddress.IPv6Address, ...]:
    """Return the IPv6 addresses of this namespace that others could use: neither ::1 nor our own ::6."""
    ours = (ipaddress.IPv6Address("::1"), _SOURCE)
    return tuple(address for _, address in _addresses() if address not in ours)


def has_inbound_source() -> bool:
    """Whether lo has the address that the sidecar dials its application from, over IPv6."""
    return (_LOOPBACK_INDEX, _SOURCE) in _addresses()


def add_inbound_source() -> bool:
    """Give lo the sidecar's IPv6 source; return whether that changed anything. Raises UserError."""
    return not has_inbound_source() and _change("add", unneeded=errno.EEXIST)


def remove_inbound_source() -> bool:
    """Take the sidecar's IPv6 source from lo; return whether that changed anything. Raises UserError."""
    return has_inbound_source() and _change("del", unneeded=errno.EADDRNOTAVAIL)


def _addresses() -> tuple[tuple[int, ipaddress.IPv6Address], ...]:
    with IPRoute() as route:
        return tuple(
            (answer["index"], ipaddress.IPv6Address(answer.get("IFA_ADDRESS")))
            for answer in route.get_addr(family=socket.AF_INET6)
            # A kernel without IPv6 answers with the addresses of every family that it has.
            if answer["family"] == socket.AF_INET6
        )


def _change(command: str, unneeded: int) -> bool:
    # `unneeded` is the kernel's answer where another process was faster.
    try:
        with IPRoute() as route:
            route.addr(command, index=_LOOPBACK_INDEX, address=str(_SOURCE), prefixlen=128, family=socket.AF_INET6)
    except NetlinkError as error:
        if error.code == unneeded:
            return False
        raise UserError(_explanation(command, error.code)) from error
    return True


def _explanation(command: str, code: int) -> str:
    what = f"cannot {command} {_SOURCE}/128 on lo"
    if code == errno.EPERM:
        return f"{what}: this needs the capability NET_ADMIN; run it as root"
    if code == errno.EACCES:
        return f"{what}: IPv6 is off there; set the sysctl net.ipv6.conf.lo.disable_ipv6 to 0, or use --ipv6 off"
    return f"{what}: {os.strerror(code)}; look at `ip -6 address show dev lo`, or use --ipv6 off"
