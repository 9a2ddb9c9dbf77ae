"""Policies in folders, a gate over real counters, and records that write into a list."""

from __future__ import annotations

import datetime

import pytest

from mesh.facts import Facts
from mesh.modes import MTLSMode
from proxy.config import Direction, Endpoint
from proxy.metrics import Metrics
from proxy.policy.config import PolicyConfig
from proxy.policy.gate import Gate
from proxy.record import ConnectionRecord, Sinks
from tests.proxy.tunnels.services import Lines
from tests.support.policies import document

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
WEB = "cluster.local/ns/default/sa/web"
OTHER = "cluster.local/ns/default/sa/other"


class Rig:
    """A gate, and everything that it writes to."""

    def __init__(self, config: PolicyConfig, mode: MTLSMode) -> None:
        self.now = NOW
        self.monotonic = 0.0
        self.lines = Lines()
        self.metrics = Metrics()
        self.sinks = Sinks(self.metrics, self.lines, lambda: self.now)
        self.gate = Gate(config, mode, self.sinks, lambda: self.monotonic)

    def record(self) -> ConnectionRecord:
        return ConnectionRecord(self.sinks, Direction.INBOUND, Endpoint("10.0.0.9", 4000), "-", "qbitel")

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def rig():
    def make(mode: MTLSMode = MTLSMode.STRICT, **config) -> Rig:
        return Rig(PolicyConfig(**config), mode)

    return make


def facts(principal: str | None = WEB, port: int = 80, source: str = "10.0.0.9") -> Facts:
    return Facts(port, principal, source, "10.0.0.1")


def allow(*principals: str, name: str = "allow", namespace: str = "default", action: str = "ALLOW", **metadata) -> str:
    """An AuthorizationPolicy about these principals, as YAML."""
    spec = {"action": action, "rules": [{"from": [{"source": {"principals": list(principals)}}]}]}
    return document("AuthorizationPolicy", spec, name=name, namespace=namespace, **metadata)


def mode_of(mode: str, *, name: str = "mode", namespace: str = "default", selector=None, ports=None) -> str:
    """A PeerAuthentication, as YAML."""
    spec = {"mtls": {"mode": mode}} if mode else {}
    if selector:
        spec["selector"] = {"matchLabels": selector}
    if ports:
        spec["portLevelMtls"] = {str(port): {"mode": each} for port, each in ports.items()}
    return document("PeerAuthentication", spec, name=name, namespace=namespace)
