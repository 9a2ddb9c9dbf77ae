"""Finds the entry for a destination: the most specific one, in a defined order. Pure.

1. By name: the exact name; then the suffix with the most labels. By address: the network with the longest prefix.
2. Among entries for the same name, suffix or network: the one with the narrowest range of ports.
A name, suffix or network whose entries do not cover the port is passed over for the next less specific one. Two entries
that would tie are a fault of the document.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.peers.entries import PeerEntry
from proxy.routes import Address, Network, PortRange, plain_address

SUFFIX: Final = "*."


@dataclass(frozen=True, slots=True)
class Clash:
    """Two entries say something about the same destinations."""

    first: PeerEntry
    second: PeerEntry
    what: str


class PeerTable:
    """The entries, ready to be asked."""

    def __init__(self, entries: Iterable[PeerEntry]) -> None:
        self.entries = tuple(entries)
        # Each list has the narrowest ranges of ports first.
        self._networks: dict[int, dict[int, dict[int, list[tuple[PortRange, PeerEntry]]]]] = {4: {}, 6: {}}
        self._hosts: dict[str, list[tuple[PortRange, PeerEntry]]] = {}
        for entry in self.entries:
            for ports in entry.ports:
                for network in entry.networks:
                    by_length = self._networks[network.version].setdefault(network.prefixlen, {})
                    by_length.setdefault(int(network.network_address), []).append((ports, entry))
                for host in entry.hosts:
                    self._hosts.setdefault(host, []).append((ports, entry))
        for found in self._lists():
            found.sort(key=lambda pair: pair[0].width)
        self._lengths = {version: sorted(by_length, reverse=True) for version, by_length in self._networks.items()}

    @property
    def names(self) -> frozenset[str]:
        """The exact host names, whose addresses somebody has to find out."""
        return frozenset(host for host in self._hosts if not host.startswith(SUFFIX))

    def by_address(self, host: str, port: int) -> PeerEntry | None:
        """The entry for an address as text."""
        return self.at(plain_address(host), port)

    def at(self, address: Address, port: int) -> PeerEntry | None:
        """The entry for an address, by networks alone."""
        value, bits = int(address), address.max_prefixlen
        by_length = self._networks[address.version]
        for length in self._lengths[address.version]:
            start = value >> (bits - length) << (bits - length)
            entry = _covering(by_length[length].get(start, ()), port)
            if entry is not None:
                return entry
        return None

    def by_name(self, name: str, port: int) -> PeerEntry | None:
        """The entry for a host's name, by names and suffixes alone. A trailing dot and case mean nothing."""
        name = name.lower().removesuffix(".")
        for key in (name, *_suffixes(name)):
            entry = _covering(self._hosts.get(key, ()), port)
            if entry is not None:
                return entry
        return None

    def clashes(self) -> Iterator[Clash]:
        """Every pair of ranges for the same name or network, of the same width, that share a port."""
        for what, found in self._named_lists():
            for place, (ports, entry) in enumerate(found):
                for other_ports, other in found[place + 1 :]:
                    if other_ports.width > ports.width:
                        break
                    if ports.overlaps(other_ports):
                        yield Clash(entry, other, f"{what}, {_ports(ports)}")

    def _lists(self) -> Iterator[list[tuple[PortRange, PeerEntry]]]:
        yield from (found for _, found in self._named_lists())

    def _named_lists(self) -> Iterator[tuple[str, list[tuple[PortRange, PeerEntry]]]]:
        yield from self._hosts.items()
        for version, by_length in self._networks.items():
            kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
            for length, by_start in by_length.items():
                for start, found in by_start.items():
                    yield f"{kind(start)}/{length}", found


def _covering(found: Iterable[tuple[PortRange, PeerEntry]], port: int) -> PeerEntry | None:
    return next((entry for ports, entry in found if port in ports), None)


def _suffixes(name: str) -> Iterator[str]:
    """`*.b.c` and `*.c` for `a.b.c`: the longest first."""
    rest = name
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"{SUFFIX}{rest}"


def _ports(ports: PortRange) -> str:
    if ports.first == 0:
        return "every port"
    return f"port {ports}" if ports.width == 1 else f"ports {ports}"


def network_of(text: str) -> Network:
    """Parse a network or a single address. Raises ValueError where it is none or has bits set behind its prefix."""
    return ipaddress.ip_network(text, strict=True)
