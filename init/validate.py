"""Proof by a real connection: one that the rules must capture is dialled, and must arrive at the sidecar's port.

Reading the rules back tells that they stand; this tells that the kernel obeys them. It runs before the sidecar does
(in the init container), and so listens on the sidecar's port itself. Which of the two directions can be tried depends
on who asks: the sidecar's own user is let out, and comes back in by the front door; everybody else is captured.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from init.config import InterceptionConfig
from init.probes import Probe, captures_interface, probes_for
from init.routes import route_to
from init.rules import Family
from mesh.errors import UserError

# A redirected connection never leaves the kernel: it takes microseconds, and seconds only where the guard of another
# run drops its first packet, which TCP sends again after one second and then after two more (RFC 6298 §2.1, §5.5).
PATIENCE: Final = 5.0  # seconds
# Once the dialler is connected, the other end waits to be accepted: lo is faster than the return from connect(2). One
# second is for a machine that is busy with everything else.
_SETTLED: Final = 1.0  # seconds

_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h, and the same number in linux/netfilter_ipv6/ip6_tables.h
_SOCKET_FAMILY: Final = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


class NotRedirected(UserError):
    """A connection that the rules must capture did not arrive at the sidecar's port."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was seen to arrive, and one line for each thing that could not be tried."""

    arrived: tuple[Probe, ...]
    untried: tuple[str, ...]


def validate(config: InterceptionConfig, families: Iterable[Family], patience: float = PATIENCE) -> Proof:
    """Dial what `config` captures in each of `families`; wait `patience` seconds for it at the sidecar's port.

    Raises NotRedirected where it does not arrive, UserError where it cannot be tried.
    """
    arrived: list[Probe] = []
    untried: list[str] = []
    for family in families:
        found, obstacle = _prove(config, family, patience)
        if found:
            arrived.append(found)
        else:
            untried.append(f"{family.value}: {obstacle}")
    return Proof(tuple(arrived), tuple(untried))


def _prove(config: InterceptionConfig, family: Family, patience: float) -> tuple[Probe | None, str]:
    """Return the connection that arrived, or None and why none could be tried. Raises NotRedirected, UserError."""
    said = ""
    for probe in probes_for(config, family, os.geteuid(), os.getegid()):
        obstacle = _obstacle(config, probe)
        if not obstacle and _arrives(probe, patience):
            return probe, ""
        # The first one is the most telling: it is of what the configuration names first.
        said = said or obstacle or _no_route(probe)
    return None, said or "nothing is captured that this user could try"


def _obstacle(config: InterceptionConfig, probe: Probe) -> str:
    """Why `probe` would prove nothing from here; empty where it would."""
    if probe.arrives == config.inbound_port:
        return ""  # the front door is on lo, which is always looked at
    route = route_to(probe.family, probe.host)
    if route is None:
        return _no_route(probe)
    if route.local:
        return f"{probe.host} is this pod itself, and what it sends itself is not captured"
    if not captures_interface(config, route.interface):
        return f"{probe.host} is reached over {route.interface}, which is not captured"
    return ""


def _no_route(probe: Probe) -> str:
    return f"there is no route to {probe.host}"


def _arrives(probe: Probe, patience: float) -> bool:
    """Try `probe`; False where there is no route to it. Raises NotRedirected, UserError."""
    with _listening(probe) as listener, socket.socket(_SOCKET_FAMILY[probe.family]) as dialler:
        dialler.settimeout(patience)
        try:
            if probe.source:
                dialler.bind((probe.source, 0))
            dialler.connect((probe.host, probe.port))
        except OSError as error:
            if error.errno in _NO_ROUTE and not _has_route(probe):
                return False
            raise NotRedirected(_explanation(probe, "it got no answer")) from error
        listener.settimeout(_SETTLED)
        while True:
            try:
                connection, peer = listener.accept()
            except OSError as error:
                raise NotRedirected(_explanation(probe, "somebody else answered it")) from error
            with connection:
                # Anybody may dial the port meanwhile; ours comes from the dialler's own address and port.
                if peer[:2] == dialler.getsockname()[:2]:
                    return _is_for(probe, connection)


def _has_route(probe: Probe) -> bool:
    # A router's "unreachable" (ICMP) gives the dialler the same errors as a missing route does, but it answers a packet
    # that has left the pod. Connecting a datagram socket asks for the route and sends nothing.
    with socket.socket(_SOCKET_FAMILY[probe.family], socket.SOCK_DGRAM) as asking:
        try:
            if probe.source:
                asking.bind((probe.source, 0))
            asking.connect((probe.host, probe.port))
        except OSError:
            return False
    return True


def _listening(probe: Probe) -> socket.socket:
    listener = socket.socket(_SOCKET_FAMILY[probe.family])
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if probe.family is Family.V6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((probe.family.unspecified, probe.arrives))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(
            f"the redirect cannot be proved: port {probe.arrives} ({probe.family.value}) cannot be listened on "
            f"({os.strerror(error.errno or 0)}); validate before the sidecar starts, whose readiness proves it later"
        ) from error
    return listener


def _is_for(probe: Probe, connection: socket.socket) -> bool:
    try:
        if probe.family is Family.V4:
            raw = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
            port, packed = struct.unpack("!2xH4s8x", raw)
        else:
            raw = connection.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
            port, packed = struct.unpack("!2xH4x16s4x", raw)
    except OSError as error:
        raise NotRedirected(_explanation(probe, "the kernel does not tell where it was going")) from error
    destination = (str(ipaddress.ip_address(packed)), port)
    if destination != (probe.host, probe.port):
        raise NotRedirected(_explanation(probe, f"the kernel says that it was going to {destination}"))
    return True


def _explanation(probe: Probe, what: str) -> str:
    return (
        f"a connection to {probe} did not arrive at the sidecar's port {probe.arrives} as it must: {what}; this pod "
        "would send plaintext, so it must not start: see `qbitel init --check`, and whether a CNI changes rules later"
    )
