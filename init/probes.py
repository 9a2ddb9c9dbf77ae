"""Which connections would prove that the rules work: what a configuration captures, as addresses and ports. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Final, TypeAlias

from init.config import LAST_PORT, IdRange, InterceptionConfig, Network, Networks, PortRange
from init.rules import Family
from mesh import names

# Addresses for documentation (RFC 5737, RFC 3849): nobody answers there, so that nothing but a redirect can.
_NOBODY: Final = {
    Family.V4: ("192.0.2.1", "198.51.100.1", "203.0.113.1"),
    Family.V6: ("2001:db8::1", "2001:db8:ffff::1", "2001:db8:ffff:ffff::1"),
}
_EVERYWHERE: Final = {Family.V4: ipaddress.ip_network("0.0.0.0/0"), Family.V6: ipaddress.ip_network("::/0")}
# A loopback address that is neither the application's nor the sidecar's source; IPv6 has ::1 and the sidecar's alone.
_FRONT_DOOR: Final = {Family.V4: ("127.0.0.2", ""), Family.V6: (names.INBOUND_SOURCE_V6, "::1")}
_EVERY_PORT: Final = PortRange(1, LAST_PORT)
# Of each network a few stretches that are not excluded are looked at, and a few addresses of each: enough to find one
# that this pod does not have itself. All together are so few that asking for each one's route takes no time.
_STRETCHES: Final = 4
_MOST: Final = 64

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Stretch: TypeAlias = tuple[int, int]  # the first and the last address, as numbers


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


def probes_for(config: InterceptionConfig, family: Family, uid: int, gid: int) -> Iterator[Probe]:
    """Return connections that `config` captures when `uid` and `gid` dial them, the best first, 64 at most.

    One of them suffices; which of them this pod has a route to is not known here.
    """
    if uid == config.proxy_uid:
        host, source = _FRONT_DOOR[family]
        port = _free_port(_EVERY_PORT, config.exclude_outbound_ports)
        return iter([Probe(family, host, port, config.inbound_port, source)] if port else [])
    # The sidecar's group is let out like its user; over lo its user alone goes by the front door.
    if gid == config.proxy_gid or not _captures_user(config, uid, gid):
        return iter(())
    exempt = (*config.exclude_outbound_ports, *_ports_of(config, uid))
    return islice(_probes(config, family, exempt), _MOST)


def captures_interface(config: InterceptionConfig, name: str) -> bool:
    """Whether what leaves by the interface `name` is captured."""

    def among(patterns: Iterable[str]) -> bool:
        return any(name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern for pattern in patterns)

    return not among(config.exclude_interfaces) and (
        config.include_interfaces is None or among(config.include_interfaces)
    )


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


def _probes(config: InterceptionConfig, family: Family, exempt: Sequence[PortRange]) -> Iterator[Probe]:
    for networks, ports in _captured_places(config, family):
        port = _free_port(ports, exempt)
        if port:
            for host in _hosts(networks, config.exclude_outbound_cidrs, family):
                yield Probe(family, str(host), port, config.outbound_port)


def _captured_places(config: InterceptionConfig, family: Family) -> Iterator[tuple[Networks, PortRange]]:
    everywhere = (_EVERYWHERE[family],)
    if config.include_outbound_ports is None or config.include_outbound_cidrs is None:
        yield everywhere, _EVERY_PORT
        return
    yield tuple(found for found in config.include_outbound_cidrs if found.version == family.version), _EVERY_PORT
    yield from ((everywhere, ports) for ports in config.include_outbound_ports)


def _free_port(ports: PortRange, excluded: Iterable[PortRange]) -> int | None:
    """The self-test's port if it is one of `ports` and not excluded, else the first that is; None where none is."""
    # DNS and the tunnel have rules of their own.
    taken = [*excluded, *(PortRange(port, port) for port in (names.TUNNEL_PORT, 53))]
    for port in chain((names.SELF_TEST_PORT,), range(ports.first, ports.last + 1)):
        if ports.first <= port <= ports.last and not any(found.first <= port <= found.last for found in taken):
            return port
    return None


def _hosts(networks: Networks, excluded: Networks, family: Family) -> Iterator[_Address]:
    """Addresses in `networks` and in none of `excluded`: nobody's where they are among them, then each network's."""
    for address in map(ipaddress.ip_address, _NOBODY[family]):
        if _within(address, networks) and not _within(address, excluded):
            yield address
    stretches = sorted(
        (int(found.network_address), int(found.broadcast_address))
        for found in excluded
        if found.version == family.version
    )
    # The networks take turns: any of them may be one that cannot be reached from here.
    for turn in zip_longest(*(_hosts_of(network, stretches) for network in networks)):
        yield from (address for address in turn if address is not None and _can_be_dialled(address))


def _within(address: _Address, networks: Networks) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _hosts_of(network: Network, excluded: Sequence[_Stretch]) -> Iterator[_Address]:
    for first, last in islice(_remaining(network, excluded), _STRETCHES):
        size = last - first + 1
        # A network's first address is often its name, and its last one reaches everybody; its second one is often the
        # gateway, or this pod. The middle may lie behind another route.
        for offset in dict.fromkeys((1, 2, size // 2, size - 2, 0)):
            if 0 <= offset < size:
                yield network.network_address + (first + offset - int(network.network_address))


def _remaining(network: Network, excluded: Sequence[_Stretch]) -> Iterator[_Stretch]:
    """What is left of `network` without `excluded`, which are sorted."""
    first, last = int(network.network_address), int(network.broadcast_address)
    for low, high in excluded:
        if low > last:
            break
        if low > first:
            yield first, low - 1
        first = max(first, high + 1)
    if first <= last:
        yield first, last


def _can_be_dialled(address: _Address) -> bool:
    if address.is_unspecified or address.is_multicast:
        return False
    # An IPv6 socket dials the first by IPv4, and the second only with the name of an interface.
    return address.version == 4 or not (address.ipv4_mapped or address.is_link_local)
