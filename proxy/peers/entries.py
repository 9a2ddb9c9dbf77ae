"""What a peers document says, as values: an entry for each kind of destination. Pure, and light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from proxy.routes import EVERY_PORT, Mode, Network, PortRange

# Seconds. Longer than this nobody waits for a connection: Linux itself gives up after 127 s.
LONGEST_CONNECT: Final = 120.0
LONGEST_EJECTION: Final = 24 * 3600.0

MESH_FLAG: Final = "--mesh"  # no name of an entry in a document begins with it


class Balancing(Enum):
    """Which of several endpoints gets the next connection."""

    ROUND_ROBIN = "roundRobin"  # each in turn, by weight
    LEAST_CONNECTIONS = "leastConnections"  # of two drawn by weight, the one with fewer open connections
    LATENCY = "latency"  # of two drawn by weight, the one that is expected to answer earlier (peak EWMA)
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class PeerEndpoint:
    """One address of a destination; `port` None: the port that the application dialled. `weight` is its share."""

    host: str
    port: int | None = None
    weight: int = 1

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ejection:
    """When an endpoint is left out: after so many failures in a row, for `time` seconds and longer each time.

    `failures` 0: never. At most `most_percent` of an entry's endpoints are left out at one time; none is any more while
    fewer than `panic_percent` are left.
    """

    failures: int = 5
    interval: float = 10.0
    time: float = 30.0
    most_percent: int = 50
    panic_percent: int = 0


@dataclass(frozen=True, slots=True)
class Retrying:
    """How often a connection that could not be made is tried again, at another endpoint where there is one.

    Retries of all connections together stay below `ratio` of them and `min_per_second` more (mesh/retry_budget.py).
    """

    attempts: int = 2
    ratio: float = 0.2
    min_per_second: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEntry:
    """One kind of destination: whatever matches one of `networks` or `hosts`, and one of `ports`.

    `hosts` are names, or suffixes that begin with `*.`. `identities` empty: any identity that the sidecar accepts.
    `tunnel_port` None: the peer is dialled where the application dials. `connect_timeout` (seconds) None: the
    sidecar's. `max_connections` and `max_pending` are of one worker; None: no limit.

    `services` says which of `networks` are those of which Service, by its full name. `said` are the fields that the
    document has; `rule` is the DestinationRule that has added to them, "" where none has (rules.py).
    """

    name: str
    mode: Mode
    networks: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    ports: tuple[PortRange, ...] = (EVERY_PORT,)
    identities: frozenset[str] = frozenset()
    profile: str | None = None
    endpoints: tuple[PeerEndpoint, ...] = ()
    tunnel_port: int | None = None
    balancing: Balancing | None = None
    connect_timeout: float | None = None
    retrying: Retrying | None = None
    ejection: Ejection | None = None
    max_connections: int | None = None
    max_pending: int | None = None
    services: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)
    said: frozenset[str] = frozenset()
    rule: str = ""

    @property
    def needs_state(self) -> bool:
        """Whether its connections have to be counted, or its endpoints chosen among."""
        return bool(
            self.endpoints or self.balancing or self.retrying or self.ejection or self.max_connections
            or self.max_pending
        )  # fmt: skip


def mesh_entry(network: Network) -> PeerEntry:
    """What `--mesh CIDR` says."""
    return PeerEntry(name=f"{MESH_FLAG} {network}", mode=Mode.REQUIRE, networks=(network,))
