"""What the data path is expected to reach, as ratios to its peers in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.mesh.rounds import ALONE, Results

_PER_SECOND: Final = "requests_per_second"
_NEW: Final = "connections_per_second"


@dataclass(frozen=True, slots=True)
class Expectation:
    """`peer`'s figure over `base`'s, or the other way round where less is better; or (base "") a figure itself."""

    name: str
    limit: float
    measure: str
    figure: str
    peer: str
    base: str
    less_is_better: bool = False
    unit: str = ""

    def found(self, results: Results) -> float | None:
        """What was measured; None where a contender was missing."""
        if not self.base:
            return results.median(self.measure, self.figure, self.peer)
        if self.less_is_better:
            return results.ratio(self.measure, self.figure, self.base, self.peer)
        return results.ratio(self.measure, self.figure, self.peer, self.base)

    def spread(self, results: Results) -> tuple[float, float] | None:
        """Its lowest and highest round."""
        if not self.base:
            rounds = results.rounds(self.measure, self.figure, self.peer)
            return (min(rounds), max(rounds)) if rounds else None
        pair = (self.base, self.peer) if self.less_is_better else (self.peer, self.base)
        return results.spread(self.measure, self.figure, *pair)

    def is_reached_by(self, found: float) -> bool:
        """Whether `found` is good enough."""
        return found <= self.limit if not self.base else found >= self.limit


EXPECTATIONS: Final[Sequence[Expectation]] = (
    Expectation("bulk, 1 stream", 1.0, "bulk-1", "gb_per_second", "ours", "envoy"),
    Expectation("bulk, 4 streams", 1.15, "bulk-4", "gb_per_second", "ours", "envoy"),
    Expectation("CPU per GB, 4 streams", 1.1, "bulk-4", "cpu_seconds_per_gb", "ours", "envoy", less_is_better=True),
    Expectation("requests/s, 32 × 64 B", 1.05, "requests-32-64", _PER_SECOND, "ours", "envoy"),
    Expectation("requests/s, 256 × 1 KB", 1.2, "requests-256-1024", _PER_SECOND, "ours", "envoy"),
    Expectation("CPU per request, 32 × 64 B", 1.2, "requests-32-64", "cpu_microseconds_per_request", "ours", "envoy",
                less_is_better=True),
    Expectation("requests/s, 32 × 64 B, against tunnels", 0.95, "requests-32-64", _PER_SECOND, "ours", "envoy-tunnels"),
    Expectation("new connections/s, 1 at a time", 3, "connections-1", _NEW, "ours", "envoy"),
    Expectation("new connections/s, 16 at a time", 6, "connections-16", _NEW, "ours", "envoy"),
    Expectation("new connections/s, 1 at a time, against tunnels", 1.1, "connections-1", _NEW, "ours", "envoy-tunnels"),
    Expectation("new connections/s, 16 at a time, against tunnels", 1.1, "connections-16", _NEW, "ours",
                "envoy-tunnels"),
    Expectation("full handshakes/s, 16 at a time, default provider", 0.45, "full-16", _NEW, "ours-full", "envoy-full"),
    Expectation("full handshakes/s, 16 at a time, liboqs", 1.2, "full-16", _NEW, "ours-full-liboqs", "envoy-full"),
    Expectation("memory (PSS) with 1,000 connections", 2, ALONE, "connections_pss_mib", "ours", "envoy",
                less_is_better=True),
    Expectation("resident memory of an idle sidecar", 56, ALONE, "idle_rss_mib", "ours", "", unit=" MiB"),
    Expectation("start to first echo", 0.3, ALONE, "seconds_to_first_echo", "ours", "", unit=" s"),
)  # fmt: skip
