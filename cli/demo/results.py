"""What the demo measured, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cli.demo.search import WireReport
from cli.demo.sidecar import Handshake


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that `percent` of all do not exceed."""
    if not values:
        raise ValueError("no values, no percentile")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in milliseconds."""

    count: int
    p50: float
    p99: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Times:
        return cls(len(milliseconds), percentile(milliseconds, 50), percentile(milliseconds, 99))

    @classmethod
    def of_microseconds(cls, microseconds: Sequence[float]) -> Times:
        return cls.of([value / 1000 for value in microseconds])


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file that crossed the wire."""

    asked: int  # bytes
    received: int
    seconds: float
    sent_sha256: str  # as the server counted them
    received_sha256: str  # as the client did

    @property
    def mib_per_second(self) -> float:
        return self.received / self.seconds / (1 << 20)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was done once without the sidecars and once with them, and what the tap saw of it."""

    wire: WireReport
    sent: dict[str, int]  # how often each pattern was sent
    sent_bytes: int  # at least so many bytes of payload must have crossed the wire
    fresh: Times  # one small request on a new connection; with --app, the time to the first byte
    kept: Times | None = None  # one small request on a kept connection
    transfer: Transfer | None = None
    answers: str = ""  # with --app: what the server does: http, server-first, other, silent


@dataclass(frozen=True, slots=True)
class MeshFacts:
    """What the sidecars said, and what was seen of them from outside."""

    identities: tuple[str, str]  # as issued: pod-a, pod-b
    outbound: tuple[Handshake, ...]  # as pod-a's sidecar logged them
    inbound: tuple[Handshake, ...]  # as pod-b's did
    full: Times | None  # handshakes with certificates at both ends
    resumed: Times | None  # handshakes with a ticket that stands for them
    metrics_urls: tuple[str, str]
    metrics: tuple[str, str]  # one line of each: the handshakes counted
    door: str  # an address on this machine that is pod-a's application to pod-b's
    sidecar_rights: tuple[str, str]  # of each sidecar: user, capabilities; empty without namespaces
    interception: tuple[str, ...]  # what the check of the rules said
    bypass: str  # what plaintext that goes around pod-a's sidecar got: "refused", or what else


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of it."""

    stage: str  # namespaces or loopback
    reason: str  # why loopback; empty otherwise
    app: str  # the user's own server; empty for the sample
    without: Traffic
    through: Traffic
    mesh: MeshFacts
