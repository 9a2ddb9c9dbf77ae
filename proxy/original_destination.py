"""Where the application's connection was going before interception redirected it to us.

netfilter keeps the answer in its connection table; a REDIRECTed socket gives it by `getsockopt(SO_ORIGINAL_DST)`.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Collection
from typing import Final

from mesh import names
from proxy.config import Endpoint

# linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h; both are 80, each at its own level.
_SO_ORIGINAL_DST: Final = 80
_IP6T_SO_ORIGINAL_DST: Final = 80
_SOCKADDR_IN: Final = struct.Struct("!2xH4s8x")  # struct sockaddr_in: family, port, address, padding
_SOCKADDR_IN6: Final = struct.Struct("!2xH4x16s4x")  # struct sockaddr_in6: family, port, flow, address, scope


class NoOriginalDestination(Exception):
    """The connection was not redirected to us, or points back at ourselves. The message says which."""


class SelfTestArrived(NoOriginalDestination):
    """It is the sidecar's own proof that interception works (self_test.py)."""


def original_destination(sock: socket.socket, own_ports: Collection[int], *, transparent: bool = False) -> Endpoint:
    """Return where the redirected connection `sock` (accepted, IPv4 or IPv6) was going.

    Where the listener is `transparent`, TPROXY has left the destination as it was: it is the socket's own address. What
    comes in by the front door is redirected all the same, to loopback.

    Raises NoOriginalDestination where nothing redirected it; where the destination is one of `own_ports` at the
    address it was accepted on (dialling that would be dialling ourselves, for ever); or where it is a loopback address,
    which a neighbour on the same link can put into a packet.
    """
    host, port = sock.getsockname()[:2]
    untouched = transparent and not ipaddress.ip_address(host).is_loopback
    destination = Endpoint(host, port) if untouched else _read(sock)
    refuse_ourselves(destination, host, own_ports)
    return destination


def refuse_ourselves(destination: Endpoint, accepted_on: str, own_ports: Collection[int]) -> None:
    """Raise NoOriginalDestination as original_destination does; `accepted_on` is the socket's own address."""
    address = ipaddress.ip_address(destination.host)
    if destination.port in own_ports and address == ipaddress.ip_address(accepted_on.partition("%")[0]):
        raise NoOriginalDestination(
            f"it was dialled straight to the sidecar's own port {destination.port}; "
            "this port takes only connections that interception redirects (dial the application's port)"
        )
    plain = getattr(address, "ipv4_mapped", None) or address
    if destination.port == names.SELF_TEST_PORT and (plain.is_loopback or str(plain) == names.INBOUND_SOURCE_V6):
        raise SelfTestArrived(f"a self-test of interception, to {destination}")
    if plain.is_loopback or plain.is_unspecified:
        raise NoOriginalDestination(
            f"it was going to {destination}, which is inside this pod: interception never redirects that, so that "
            "somebody outside made it up, to reach what listens for this pod alone"
        )


def _read(sock: socket.socket) -> Endpoint:
    try:
        if sock.family == socket.AF_INET6:
            raw = sock.getsockopt(socket.IPPROTO_IPV6, _IP6T_SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
            port, packed = _SOCKADDR_IN6.unpack(raw)
        else:
            raw = sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
            port, packed = _SOCKADDR_IN.unpack(raw)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        raise NoOriginalDestination(
            "nothing redirected it, so that its destination is unknown; "
            "are the interception rules in place (qbitel init --check)?"
        ) from error
    return Endpoint(str(ipaddress.ip_address(packed)), port)
