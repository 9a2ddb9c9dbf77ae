"""The numbers that discovery counts. Labels are namespaces of the mesh and closed sets."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector


class Metrics:
    """Every metric of `qbitel discovery serve`, in a registry of its own."""

    def __init__(self) -> None:
        # They would double every series for a value that nobody plots.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self.leader = Gauge(
            "qbitel_discovery_leader", "1 while this replica is the one that writes.", registry=registry
        )
        self._errors = Gauge(
            "qbitel_discovery_errors",
            "What keeps a namespace from its newest documents: policies that cannot be read, or too many of them. The "
            "log and the annotation of its ConfigMap say what it is.",
            ("namespace",),
            registry=registry,
        )
        self._namespaces = Gauge("qbitel_discovery_namespaces", "Namespaces of the mesh.", registry=registry)
        self.addresses = Gauge(
            "qbitel_discovery_required_addresses", "Addresses of Services that require the mesh.", registry=registry
        )
        self._behind = Gauge(
            "qbitel_discovery_namespaces_behind",
            "Namespaces whose documents are still to be written.",
            registry=registry,
        )
        self.writes = Counter("qbitel_discovery_writes", "ConfigMaps that were written.", registry=registry)
        self._planning = Gauge(
            "qbitel_discovery_planning_seconds", "How long the last look at everything took.", registry=registry
        )
        build = Gauge(
            "qbitel_build_info", "Always 1; the labels say what is running.", ("version", "python"), registry=registry
        )
        build.labels(importlib.metadata.version("qbitel-mesh"), platform.python_version()).set(1)
        ProcessCollector(registry=registry)
        self._failing: frozenset[str] = frozenset()

    def show(self, *, faults: Mapping[str, int], namespaces: int, behind: int, seconds: float) -> None:
        """What the last look at everything found, in `seconds`; `faults` by namespace, where there are any."""
        for namespace in self._failing - faults.keys():
            self._errors.remove(namespace)
        for namespace, number in faults.items():
            self._errors.labels(namespace).set(number)
        self._failing = frozenset(faults)
        self._namespaces.set(namespaces)
        self._behind.set(behind)
        self._planning.set(seconds)
