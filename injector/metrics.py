"""The numbers that an injector counts. Every label comes from a closed set: strangers cannot make them grow."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from injector.review import Verdict

# Seconds. An answer takes a millisecond of CPU; at five seconds the API server gives up.
_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """Every metric of `qbitel injector serve`, in a registry of its own."""

    def __init__(self) -> None:
        # They would double every series for a value that nobody plots.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self._injections = Counter(
            "qbitel_injections",
            "Requests for a pod that were answered: injected, passed (allowed as it is), refused (the pod must not run "
            "as it is), malformed (no review that can be read), failed (a fault of ours).",
            ("result",),
            registry=registry,
        )
        for verdict in Verdict:
            self._injections.labels(verdict.value)
        self._seconds = Histogram(
            "qbitel_injection_seconds",
            "From a review that has come whole to its answer.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._expiry = Gauge(
            "qbitel_cert_expiry_seconds",
            "Until the certificate ends that the API server is shown; negative once it has.",
            registry=registry,
        )
        self._connections = Gauge("qbitel_injector_connections", "Open now.", registry=registry)
        self._evicted = Counter(
            "qbitel_injector_connections_evicted",
            "Connections that were closed because there were too many and nobody was silent for longer.",
            registry=registry,
        )
        self._evicted_before = 0
        build = Gauge(
            "qbitel_build_info", "Always 1; the labels say what is running.", ("version", "python"), registry=registry
        )
        build.labels(importlib.metadata.version("qbitel-mesh"), platform.python_version()).set(1)
        ProcessCollector(registry=registry)

    def answered(self, verdict: Verdict) -> None:
        """A request was answered."""
        self._injections.labels(verdict.value).inc()

    def took(self, seconds: float) -> None:
        """So long from a whole review to its answer."""
        self._seconds.observe(seconds)

    def show(
        self, certificate_end: datetime.datetime, now: datetime.datetime, *, connections: int, evicted: int
    ) -> None:
        """What is known only when it is asked for. `evicted` counts from the beginning."""
        self._expiry.set((certificate_end - now).total_seconds())
        self._connections.set(connections)
        self._evicted.inc(evicted - self._evicted_before)
        self._evicted_before = evicted
