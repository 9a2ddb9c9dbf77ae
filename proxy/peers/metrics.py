"""What happens on the way to peers, counted. Labels are names of entries, which operators choose, and capped."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

# Entries with a label of their own in one process; those beyond are counted together.
MAX_PEERS: Final = 256
OTHER: Final = "other"


class PeerMetrics:
    """The counters of one process, in its `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._fallbacks = Counter(
            "qbitel_plaintext_fallbacks",
            "Outbound connections of mode prefer that went as plaintext, by what had shown that TLS is not spoken.",
            ("peer", "reason"),
            registry=registry,
        )
        self._withheld = Counter(
            "qbitel_plaintext_fallbacks_withheld",
            "Outbound connections of mode prefer that were refused: the destination spoke the mesh's TLS lately.",
            ("peer",),
            registry=registry,
        )
        self._retries = Counter(
            "qbitel_connect_retries",
            "Outbound connections tried again: made, or over_budget where there had been too many.",
            ("peer", "result"),
            registry=registry,
        )
        self._ejections = Counter(
            "qbitel_endpoint_ejections", "Endpoints that were left out because they failed.", ("peer",),
            registry=registry,
        )  # fmt: skip
        self._ejected = Gauge(
            "qbitel_endpoints_ejected",
            "Endpoints that are left out now; of several workers, the most.",
            ("peer",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._reloads = Counter(
            "qbitel_peers_reloads", "Readings of the peers document: ok or failed.", ("result",), registry=registry
        )
        self.generation = Gauge(
            "qbitel_peers_generation",
            "How often the peers document in use was replaced. Of several workers, the least.",
            registry=registry,
            multiprocess_mode="min",
        )
        self._peers: set[str] = set()

    def fell_back(self, peer: str, reason: str) -> None:
        """One connection goes as plaintext."""
        self._fallbacks.labels(self._capped(peer), reason).inc()

    def withheld(self, peer: str) -> None:
        """One connection could have gone as plaintext and did not."""
        self._withheld.labels(self._capped(peer)).inc()

    def retried(self, peer: str, *, within_budget: bool) -> None:
        """One connection is tried again, or is not because that had happened too often."""
        self._retries.labels(self._capped(peer), "made" if within_budget else "over_budget").inc()

    def ejected(self, peer: str) -> None:
        """One endpoint is left out."""
        self._ejections.labels(self._capped(peer)).inc()

    def ejected_now(self, peer: str, count: int) -> None:
        """So many endpoints are left out."""
        self._ejected.labels(self._capped(peer)).set(count)

    def reloaded(self, *, ok: bool) -> None:
        """The document was read, or could not be."""
        self._reloads.labels("ok" if ok else "failed").inc()

    def _capped(self, peer: str) -> str:
        if peer in self._peers:
            return peer
        if len(self._peers) >= MAX_PEERS:
            return OTHER
        self._peers.add(peer)
        return peer
