"""Where outbound connections go and how: the entries of the moment, asked once for each destination.

A new document, or new addresses of names, replace everything at once: a connection takes one or the other.
"""

from __future__ import annotations

import itertools
import random as randomness
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from proxy.config import Endpoint
from proxy.peers.entries import MESH_FLAG, PeerEndpoint, PeerEntry
from proxy.peers.evidence import Memory
from proxy.peers.metrics import PeerMetrics
from proxy.peers.table import PeerTable
from proxy.peers.via import Via
from proxy.routes import EVERY_PORT, Mode, plain_address

if TYPE_CHECKING:
    from mesh.balancing import Endpoint as Member
    from proxy.peers.group import Group

# Destinations whose way is kept at hand: some 2 MB. An application that scans networks only makes us think again.
_CAPACITY: Final = 4096
# Of each kind, in an answer to an operator: a megabyte at most.
_MOST_SHOWN: Final = 1000


class Way:
    """How connections to one destination leave."""

    __slots__ = ("_vias", "connect_timeout", "destination", "entry", "group", "is_balanced", "mode", "notes", "via")

    def __init__(
        self, destination: Endpoint, mode: Mode, entry: PeerEntry | None, group: Group | None, *, is_balanced: bool
    ) -> None:
        """`entry` None: none is about it. `is_balanced`: the endpoints of `group` stand for `destination`."""
        self.destination = destination
        self.mode = mode
        self.entry = entry
        self.group = group
        self.is_balanced = is_balanced
        self.connect_timeout = None if entry is None else entry.connect_timeout
        self.via = self._via_to(destination)
        """How a peer at the destination itself is reached."""
        # What every line about it says; of `--mesh` there is nothing to say.
        self.notes = None if entry is None or entry.name.startswith(MESH_FLAG) else {"peer": entry.name}
        self._vias: dict[Member, tuple[Via, Endpoint]] = {}

    @property
    def name(self) -> str:
        """The name of the entry; "-" where there is none."""
        return "-" if self.entry is None else self.entry.name

    def towards(self, member: Member | None) -> tuple[Via, Endpoint]:
        """How a peer is reached at this endpoint, and the address of the application there."""
        if member is None or self.group is None:
            return self.via, self.destination
        found = self._vias.get(member)
        if found is None:
            spec = self.group.spec_of(member)
            if spec is None:  # a new document came since it was chosen; this connection is of the old one
                return self.via, self.destination
            address = Endpoint(spec.host, spec.port or self.destination.port)
            found = self._vias[member] = (self._via_to(address), address)
        return found

    def _via_to(self, address: Endpoint) -> Via:
        entry = self.entry
        if entry is None:
            return Via(address)
        if entry.tunnel_port is None:
            return Via(address, entry.identities, entry.profile)
        return Via(Endpoint(address.host, entry.tunnel_port), entry.identities, entry.profile, by_stream=True)


class Router:
    """One worker's. `entries` are those that hold whatever a document says, too."""

    def __init__(
        self,
        entries: Iterable[PeerEntry],
        metrics: PeerMetrics,
        *,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        """`now` gives seconds of a monotonic clock, `random` a number from 0.0 up to 1.0."""
        self.metrics = metrics
        self.memory = Memory()
        self.now = now
        self._random = random
        self._groups: dict[tuple[str, str], Group] = {}
        self._addresses: Mapping[str, tuple[str, ...]] = {}
        self._latest: Mapping[str, tuple[str, ...]] = {}
        self._names_at: dict[str, list[str]] = {}
        self._ways: dict[Endpoint, Way] = {}
        self._targets: dict[Endpoint, Way] = {}
        self._table = PeerTable(entries)

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[PeerEntry, ...]:
        """Those in use."""
        return self._table.entries

    @property
    def names(self) -> frozenset[str]:
        """The host names whose addresses have to be found out."""
        return self._table.names

    def take_up(self, entries: Iterable[PeerEntry]) -> None:
        """These hold from now on, whole and at once. What is open stays."""
        self._table = PeerTable(entries)
        by_name = {entry.name: entry for entry in self._table.entries}
        for (name, host), group in tuple(self._groups.items()):
            entry = by_name.get(name)
            if entry is None or not entry.needs_state:
                self._groups.pop((name, host)).close()
                continue
            group.update(entry)
            group.use(self._endpoints(entry, host))
        self._forget_ways()

    def take_addresses(
        self, addresses: Mapping[str, tuple[str, ...]], latest: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """A destination at one of these addresses is the host name's.

        Balanced is over the `latest` of them, because nobody may be at the others any more; None: over all.
        """
        self._addresses = addresses
        self._latest = addresses if latest is None else latest
        names_at: dict[str, list[str]] = {}
        for name, found in addresses.items():
            for address in found:
                names_at.setdefault(str(plain_address(address)), []).append(name)
        self._names_at = names_at
        for (_, host), group in self._groups.items():
            if host and not group.entry.endpoints:
                group.use(self._endpoints(group.entry, host))
        self._forget_ways()

    def describe(self) -> dict[str, Any]:
        """What an operator is shown of it: JSON's types, and no more of each kind than anybody reads."""
        groups = itertools.islice(self._groups.items(), _MOST_SHOWN)
        return {
            "entries": [_shown(entry) for entry in self._table.entries[:_MOST_SHOWN]],
            "more_entries": max(0, len(self._table.entries) - _MOST_SHOWN),
            "groups": [{"peer": name, "host": host, **group.describe()} for (name, host), group in groups],
            "addresses": dict(itertools.islice(self._addresses.items(), _MOST_SHOWN)),
            "plaintext": self.memory.describe(self.now(), _MOST_SHOWN),
        }

    def tend(self) -> None:
        """To be called every few seconds."""
        for group in self._groups.values():
            group.tend()

    def _forget_ways(self) -> None:
        self._ways.clear()
        self._targets.clear()

    # -- for connections --------------------------------------------------------------------------------------------

    def way(self, destination: Endpoint) -> Way:
        """How a connection that the application dialled to `destination`, an address, leaves."""
        found = self._ways.get(destination)
        if found is None:
            if len(self._ways) >= _CAPACITY:
                self._ways.clear()
            found = self._ways[destination] = self._way(destination)
        return found

    def way_to_target(self, target: Endpoint) -> Way:
        """How a connection to a listener's own target leaves: by TLS of the mesh, that is what the listener is for."""
        found = self._targets.get(target)
        if found is None:
            name, entry = self._entry_of_target(target)
            found = self._targets[target] = self._made(target, Mode.REQUIRE, entry, name)
        return found

    def _way(self, destination: Endpoint) -> Way:
        address = plain_address(destination.host)
        entry, name = self._table.at(address, destination.port), ""
        for candidate in self._names_at.get(str(address), ()):
            named = self._table.by_name(candidate, destination.port)
            # Whoever can answer for a name must not lift what is said of an address: a name only makes stricter.
            if named is not None and (entry is None or _goes_before(named, entry, by_address=not name)):
                entry, name = named, candidate
        return self._made(destination, Mode.OFF if entry is None else entry.mode, entry, name)

    def _entry_of_target(self, target: Endpoint) -> tuple[str, PeerEntry | None]:
        try:
            return "", self._table.by_address(target.host, target.port)
        except ValueError:
            name = target.host.lower().removesuffix(".")
            return name, self._table.by_name(name, target.port)

    def _made(self, destination: Endpoint, mode: Mode, entry: PeerEntry | None, name: str) -> Way:
        if entry is None or not entry.needs_state:
            return Way(destination, mode, entry, None, is_balanced=False)
        host = name if not entry.endpoints else ""
        is_balanced = bool(entry.endpoints or (entry.balancing and self._latest.get(host)))
        return Way(destination, mode, entry, self._group(entry, host), is_balanced=is_balanced)

    def _group(self, entry: PeerEntry, host: str) -> Group:
        group = self._groups.get((entry.name, host))
        if group is None:
            # Whoever has no such entries does without the balancers.
            from proxy.peers.group import Group  # noqa: PLC0415

            group = Group(entry, self.metrics, now=self.now, random=self._random)
            group.use(self._endpoints(entry, host))
            self._groups[entry.name, host] = group
        return group

    def _endpoints(self, entry: PeerEntry, host: str) -> tuple[PeerEndpoint, ...]:
        if entry.endpoints or entry.balancing is None:
            return entry.endpoints
        return tuple(PeerEndpoint(address) for address in self._latest.get(host, ()))


def _shown(entry: PeerEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "mode": entry.mode.value,
        "cidrs": list(map(str, entry.networks)),
        "hosts": list(entry.hosts),
        "ports": [str(ports) for ports in entry.ports if ports != EVERY_PORT],
        "identities": sorted(entry.identities),
        "profile": entry.profile,
        "tunnel_port": entry.tunnel_port,
        "max_connections": entry.max_connections,
        "max_pending": entry.max_pending,
        "connect_timeout": entry.connect_timeout,
        "balancing": None if entry.balancing is None else entry.balancing.value,
        "rule": entry.rule or None,
    }


def _goes_before(named: PeerEntry, entry: PeerEntry, *, by_address: bool) -> bool:
    """Whether an entry by name replaces the one found so far; `by_address`: that one was found by address."""
    if named.mode is entry.mode:
        return by_address or named.name < entry.name  # any order does that is always the same
    return named.mode.strictness > entry.mode.strictness
