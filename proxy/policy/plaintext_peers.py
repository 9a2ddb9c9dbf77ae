"""Who still comes in without TLS of the mesh, by name: nobody for long enough, and STRICT is safe."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

# Sources that are named. An address that strangers can choose (IPv6) must not push out those that matter: who is
# named stays, until it has not been seen for a day and a newcomer wants its place.
MAX_NAMED: Final = 256
_FORGOTTEN_AFTER: Final = datetime.timedelta(days=1)
# Ports of ours that one source is remembered with.
_MAX_PORTS: Final = 16
# The name of all who found no place.
OTHERS: Final = "other"

_log = logging.getLogger("qbitel.proxy")


@dataclass(slots=True)
class PlaintextPeer:
    """One source address, and what it did so far."""

    source: str
    first_seen: datetime.datetime
    last_seen: datetime.datetime
    connections: int = 0
    ports: set[int] = field(default_factory=set)
    received_as: str = ""  # of the last connection: plaintext, foreign_tls, silent or bytes

    def as_dict(self) -> dict[str, object]:
        """For /config_dump and its like."""
        return {
            "source": self.source,
            "first_seen": self.first_seen.isoformat(timespec="seconds"),
            "last_seen": self.last_seen.isoformat(timespec="seconds"),
            "connections": self.connections,
            "ports": sorted(self.ports),
            "received_as": self.received_as,
        }


class PlaintextPeers:
    """At most MAX_NAMED of them, and the rest together. `count` is called with the name that each connection has."""

    def __init__(self, now: Callable[[], datetime.datetime], count: Callable[[str], None]) -> None:
        self._now = now
        self._count = count
        self._peers: dict[str, PlaintextPeer] = {}
        self._others: PlaintextPeer | None = None

    def passed(self, source: str, port: int, received_as: str) -> None:
        """A connection of `source` (an address) to `port` was let in without TLS of the mesh."""
        now = self._now()
        peer = self._peers.get(source) or self._named(source, port, now)
        peer.last_seen = now
        peer.connections += 1
        peer.received_as = received_as
        if len(peer.ports) < _MAX_PORTS:
            peer.ports.add(port)
        self._count(peer.source)

    def peers(self) -> list[PlaintextPeer]:
        """Whom STRICT would lock out, the latest first."""
        everybody = [*self._peers.values(), *((self._others,) if self._others else ())]
        return sorted(everybody, key=lambda peer: peer.last_seen, reverse=True)

    def _named(self, source: str, port: int, now: datetime.datetime) -> PlaintextPeer:
        if len(self._peers) >= MAX_NAMED and not self._forget_one(now):
            if self._others is None:
                self._others = PlaintextPeer(OTHERS, now, now)
            return self._others
        _log.info("%s comes without TLS of the mesh to port %d: STRICT there would refuse it", source, port)
        peer = self._peers[source] = PlaintextPeer(source, now, now)
        return peer

    def _forget_one(self, now: datetime.datetime) -> bool:
        oldest = min(self._peers.values(), key=lambda peer: peer.last_seen)
        if now - oldest.last_seen < _FORGOTTEN_AFTER:
            return False
        del self._peers[oldest.source]
        return True
