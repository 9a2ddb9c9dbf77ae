"""Dialling the application as the client that dialled it, where interception is by TPROXY (docs/interception.md).

The application then sees its client's address. The answers come back to us because our packets carry a mark, which
connection tracking remembers, and which routes of `qbitel init` deliver inside the pod.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import itertools
import os
import socket
from collections.abc import Iterator
from typing import Final

from mesh import names
from mesh.errors import UserError

# linux/in.h and linux/in6.h: Python 3.11 has no names for them.
_OPTIONS: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 19),  # IP_TRANSPARENT
    socket.AF_INET6: (socket.IPPROTO_IPV6, 75),  # IPV6_TRANSPARENT
}
# The client's own connection to this pod has the same two addresses and the same port of the application: whoever dials
# from the client's port, too, is taken for it. So we dial from ports that no client of ours dials from by itself: Linux
# chooses 32768 and above (net.ipv4.ip_local_port_range), and those below 1024 are not for everybody.
_PORTS: Final = range(1024, 32768)
# Before a connection is given up: as many ports that follow one another may well be in use.
_TRIES: Final = 256


class ClientAddress(str):
    """The address of a client as the one to dial its application from: a source of proxy/sockets.py."""

    __slots__ = ()


def check() -> None:
    """Raise UserError where this process may not do any of it."""
    for family, (level, option) in _OPTIONS.items():
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(level, option, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, names.TPROXY_MARK)
        except PermissionError:
            raise UserError(
                "--interception-mode TPROXY needs the capability NET_ADMIN, which this process does not have "
                "(setpriv --ambient-caps gives it to another user than root); give it, or use REDIRECT"
            ) from None
        except OSError as error:
            if family == socket.AF_INET6:
                continue  # a kernel without IPv6
            raise UserError(f"--interception-mode TPROXY: this kernel cannot do it: {error.strerror}") from None


def allow(sock: socket.socket) -> None:
    """Let `sock` have addresses that are not this pod's: those that it is dialled at, or dials from. Raises OSError."""
    level, option = _OPTIONS[socket.AddressFamily(sock.family)]
    sock.setsockopt(level, option, 1)


def can_dial_as(client: str) -> bool:
    """Whether packets from this address come back: not so for what each interface has for itself."""
    address = ipaddress.ip_address(client)
    return not (address.is_loopback or (address.version == 6 and address.is_link_local))


def bind_as(sock: socket.socket, client: str) -> None:
    """Give `sock` the client's address, and a port that no connection from there has. Raises OSError."""
    allow(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, names.TPROXY_MARK)
    ports = itertools.islice(_ports(os.getpid()), _TRIES)
    for left, port in zip(reversed(range(_TRIES)), ports, strict=True):
        try:
            sock.bind((client, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not left:
                raise
        else:
            return


@functools.cache
def _ports(process: int) -> Iterator[int]:
    """One port after the other, for ever, so that each rests for as long as can be: one whose connection has ended is
    not free for a minute (TIME_WAIT). Workers begin far from one another.
    """
    start = process * 7919 % len(_PORTS)  # a prime: processes that follow one another are spread
    return itertools.chain.from_iterable(itertools.repeat((*_PORTS[start:], *_PORTS[:start])))
