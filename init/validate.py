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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from init.config import IdRange, InterceptionConfig, Networks, PortRange
from init.rules import Family
from mesh import names
from mesh.errors import UserError

# A redirected connection never leaves the kernel: it takes microseconds, and seconds only where the guard of another
# run drops its first packet, which TCP sends again after one second and then after two more (RFC 6298 §2.1, §5.5).
PATIENCE: Final = 5.0  # seconds
# Once the dialler is connected, the other end waits to be accepted: lo is faster than the return from connect(2). One
# second is for a machine that is busy with everything else.
_SETTLED: Final = 1.0  # seconds

_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h, and the same number in linux/netfilter_ipv6/ip6_tables.h
# Addresses for documentation (RFC 5737, RFC 3849): nobody answers there, so that nothing but a redirect can.
_NOBODY: Final = {
    Family.V4: ("192.0.2.1", "198.51.100.1", "203.0.113.1"),
    Family.V6: ("2001:db8::1", "2001:db8:ffff::1", "2001:db8:ffff:ffff::1"),
}
# A loopback address that is neither the application's nor the sidecar's source; IPv6 has ::1 and the sidecar's alone.
_FRONT_DOOR: Final = {Family.V4: ("127.0.0.2", ""), Family.V6: (names.INBOUND_SOURCE_V6, "::1")}
_SOCKET_FAMILY: Final = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


class NotRedirected(UserError):
    """A connection that the rules must capture did not arrive at the sidecar's port."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One connection to try: where to (and from, where that matters), and the port where it must arrive."""

    family: Family
    host: str
    port: int
    arrives: int
    source: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.family is Family.V6 else self.host
        return f"{host}:{self.port}"


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
        probe = probe_for(config, family, os.geteuid(), os.getegid())
        if probe is None:
            untried.append(f"{family.value}: nothing that this user dials is captured")
        elif _arrives(probe, patience):
            arrived.append(probe)
        else:
            untried.append(f"{family.value}: there is no route to {probe.host}")
    return Proof(tuple(arrived), tuple(untried))


def probe_for(config: InterceptionConfig, family: Family, uid: int, gid: int) -> Probe | None:
    """Return a connection that `config` captures when `uid` and `gid` dial it; None where there is none. Pure."""
    if uid == config.proxy_uid:
        host, source = _FRONT_DOOR[family]
        port = _free_port(PortRange(1, 65535), config.exclude_outbound_ports)
        return Probe(family, host, port, config.inbound_port, source) if port else None
    # The sidecar's group is let out like its user; over lo its user alone goes by the front door.
    if gid == config.proxy_gid or not _captures_user(config, uid, gid):
        return None
    exempt = (*config.exclude_outbound_ports, *_ports_of(config, uid))
    for host, ports in _captured_places(config, family):
        port = _free_port(ports, exempt)
        if port and not _within(host, config.exclude_outbound_cidrs):
            return Probe(family, host, port, config.outbound_port)
    return None


def _captures_user(config: InterceptionConfig, uid: int, gid: int) -> bool:
    def among(number: int, ranges: Iterable[IdRange] | None) -> bool:
        return any(ids.first <= number <= ids.last for ids in ranges or ())

    if among(uid, config.exclude_uids) or among(gid, config.exclude_gids):
        return False
    everybody = config.include_uids is None and config.include_gids is None
    return everybody or among(uid, config.include_uids) or among(gid, config.include_gids)


def _ports_of(config: InterceptionConfig, uid: int) -> Iterator[PortRange]:
    for entry in config.exclude_outbound_ports_for_uids:
        if entry.uids.first <= uid <= entry.uids.last:
            yield from entry.ports


def _captured_places(config: InterceptionConfig, family: Family) -> Iterator[tuple[str, PortRange]]:
    everywhere = PortRange(1, 65535)
    if config.include_outbound_ports is None or config.include_outbound_cidrs is None:
        yield from ((host, everywhere) for host in _NOBODY[family])
        return
    for network in config.include_outbound_cidrs:
        if network.version == family.version:
            # The first address of a network is often the network's own name, and the last one's reaches everybody.
            yield str(network[1 if network.num_addresses > 2 else 0]), everywhere
    yield from ((host, ports) for ports in config.include_outbound_ports for host in _NOBODY[family])


def _free_port(ports: PortRange, excluded: Iterable[PortRange]) -> int | None:
    """The self-test's port if it is one of `ports` and not excluded, else the first that is; None where none is."""
    # DNS and the tunnel have rules of their own.
    taken = [*excluded, *(PortRange(port, port) for port in (names.TUNNEL_PORT, 53))]
    candidates: tuple[int, ...] = (names.SELF_TEST_PORT, *range(ports.first, ports.last + 1))
    for port in candidates:
        if ports.first <= port <= ports.last and not any(found.first <= port <= found.last for found in taken):
            return port
    return None


def _within(host: str, networks: Networks) -> bool:
    address = ipaddress.ip_address(host)
    return any(address in network for network in networks if network.version == address.version)


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
