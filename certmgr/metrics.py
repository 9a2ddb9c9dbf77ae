"""The numbers that an authority counts. Every label comes from a closed set: strangers cannot make them grow."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from dataclasses import dataclass
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from certmgr.proofs import Method

ISSUED: Final = "issued"
# Seconds. A certificate takes some 3 ms of CPU, TokenReview some 10; the last two are an authority that is in trouble.
_ISSUANCE_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """What is true of an authority now. `phase` is one of `phases`, those of certmgr/state.py."""

    root_fingerprint: str
    root_end: datetime.datetime
    intermediate_end: datetime.datetime
    phase: str
    phases: tuple[str, ...]
    peers: int
    revoked: int
    barred: int


class Metrics:
    """Every metric of `qbitel certmgr serve`, in a registry of its own."""

    def __init__(self) -> None:
        # They would double every series for a value that nobody plots.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self._csr = Counter(
            "qbitel_certmgr_csr",
            "Requests for a certificate that were answered, by result (issued, or the reason) and kind of proof.",
            ("result", "method"),
            registry=registry,
        )
        self._refused = Counter(
            "qbitel_certmgr_requests_refused",
            "Other requests that were refused, by reason.",
            ("reason",),
            registry=registry,
        )
        self._tls_failures = Counter(
            "qbitel_certmgr_tls_failures",
            "Connections that ended before there was a request, by reason.",
            ("reason",),
            registry=registry,
        )
        self._issuance_seconds = Histogram(
            "qbitel_certmgr_issuance_seconds",
            "From a request that is read to its certificate.",
            buckets=_ISSUANCE_BUCKETS,
            registry=registry,
        )
        self._root_expiry = Gauge(
            "qbitel_certmgr_root_expiry_seconds",
            "Until the current root ends; negative once it has.",
            registry=registry,
        )
        self._intermediate_expiry = Gauge(
            "qbitel_certmgr_intermediate_expiry_seconds",
            "Until the intermediate that signs now ends; negative once it has.",
            registry=registry,
        )
        self._phase = Gauge(
            "qbitel_certmgr_rotation_phase",
            "1 for the phase that the rotation of the root is in.",
            ("phase",),
            registry=registry,
        )
        self._peers = Gauge(
            "qbitel_certmgr_peers", "Holders of a certificate that this replica issued last.", registry=registry
        )
        self._revoked = Gauge(
            "qbitel_certmgr_revoked", "Certificates that are revoked and have not ended.", registry=registry
        )
        self._barred = Gauge(
            "qbitel_certmgr_barred", "Identities that get no certificate until the bar is lifted.", registry=registry
        )
        self.connections = Gauge("qbitel_certmgr_connections", "Connections that are open now.", registry=registry)
        self.evicted = Counter(
            "qbitel_certmgr_connections_evicted",
            "Connections that were closed because there were too many and nobody was silent for longer.",
            registry=registry,
        )
        self.polls = Gauge(
            "qbitel_certmgr_polls", "Requests that wait for a change of the bundle now.", registry=registry
        )
        build = Gauge(
            "qbitel_build_info", "Always 1; the labels say what is running.", ("version", "python"), registry=registry
        )
        build.labels(importlib.metadata.version("qbitel-mesh"), platform.python_version()).set(1)
        ProcessCollector(registry=registry)

    def issued(self, method: Method, seconds: float) -> None:
        """A certificate was made in so many seconds."""
        self._csr.labels(ISSUED, method.value).inc()
        self._issuance_seconds.observe(seconds)

    def csr_refused(self, reason: str, method: Method | None) -> None:
        """A request for a certificate was refused; `reason` is a slug of proofs.Reason."""
        self._csr.labels(reason, "none" if method is None else method.value).inc()

    def request_refused(self, reason: str) -> None:
        """Another request was refused."""
        self._refused.labels(reason).inc()

    def tls_failed(self, reason: str) -> None:
        """A connection ended in its handshake; `reason` is a slug of aiotls or pqtls."""
        self._tls_failures.labels(reason).inc()

    def show(self, figures: Figures, now: datetime.datetime) -> None:
        """Set what is known only when it is asked for."""
        self._root_expiry.set((figures.root_end - now).total_seconds())
        self._intermediate_expiry.set((figures.intermediate_end - now).total_seconds())
        for phase in figures.phases:
            self._phase.labels(phase).set(phase == figures.phase)
        self._peers.set(figures.peers)
        self._revoked.set(figures.revoked)
        self._barred.set(figures.barred)
