"""Groups whose time and randomness a test gives."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from proxy.peers.entries import Balancing, Ejection, PeerEndpoint, PeerEntry
from proxy.peers.group import Group
from proxy.peers.metrics import PeerMetrics
from proxy.routes import Mode

A, B, C = (PeerEndpoint(f"10.0.0.{number}") for number in (1, 2, 3))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def entry(*endpoints: PeerEndpoint, **more) -> PeerEntry:
    settings = {"balancing": Balancing.ROUND_ROBIN, "ejection": Ejection(failures=2, most_percent=100), **more}
    return PeerEntry(name="orders", mode=Mode.REQUIRE, endpoints=endpoints, **settings)


def group_of(*endpoints: PeerEndpoint, clock: Clock | None = None, random=lambda: 0.0, registry=None, **more) -> Group:
    metrics = PeerMetrics(registry or CollectorRegistry())
    found = Group(entry(*endpoints, **more), metrics, now=clock or Clock(), random=random)
    found.use(endpoints)
    return found
