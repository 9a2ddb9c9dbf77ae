"""The record of one connection: what it was, and the only writer of its metrics and its access-log lines.

A connection's phases tell it what they find out; `close()` writes everything exactly once, however it ended.
"""

from __future__ import annotations

import datetime
import time as clocks
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pqtls.errors import MisuseError
from pqtls.events import HandshakeCompleted
from proxy.access_log import AccessLog, Fields
from proxy.config import Direction, Endpoint
from proxy.endings import Endings
from proxy.handshake import HandshakeResult
from proxy.metrics import Metrics, TcpCounters
from proxy.prepared_lines import OF_CONNECTION, OF_HANDSHAKE, OF_STREAM, PreparedLines
from proxy.printable import printable
from proxy.reasons import CLOSED, Verdict
from proxy.refusals import RefusalLog


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where records go."""

    metrics: Metrics
    access_log: AccessLog
    now: Callable[[], datetime.datetime]
    monotonic: Callable[[], float] = clocks.monotonic
    refusals: RefusalLog = field(default_factory=RefusalLog)
    endings: Endings | None = None  # None: what is over is told at once
    prepared: PreparedLines | None = None  # None: each line is made from nothing


class ConnectionRecord:
    """Mutable while the connection lives. Bytes are named from the client's request: received = client to server."""

    __slots__ = (
        "_bytes", "_closed", "_connection_id", "_counters", "_destination", "_direction", "_event", "_handshake_ms",
        "_is_tunnel", "_local", "_notes", "_opened", "_policy", "_profile", "_received_as", "_sinks", "_source",
    )  # fmt: skip

    def __init__(self, sinks: Sinks, direction: Direction, source: Endpoint, local_identity: str, profile: str) -> None:
        self._sinks = sinks
        self._direction = direction
        self._source = source
        self._local = local_identity
        self._profile = profile
        self._opened = sinks.monotonic()
        self._destination: Endpoint | None = None
        self._event: HandshakeCompleted | None = None
        self._handshake_ms: float | None = None
        self._counters: TcpCounters | None = None
        self._bytes = (0, 0)  # (client to server, server to client) as counted so far
        self._closed = False
        self._connection_id = ""
        self._is_tunnel = False
        self._policy: str | None = None
        self._received_as: str | None = None
        self._notes: Mapping[str, str] | None = None
        sinks.metrics.connection_opened(direction)

    @property
    def direction(self) -> Direction:
        """Which way the connection goes."""
        return self._direction

    @property
    def connection_id(self) -> str:
        """What it is known by in both sidecars' logs, in hexadecimal; "" where it has no such name (yet)."""
        return self._connection_id

    @property
    def source(self) -> Endpoint:
        """Who dialled."""
        return self._source

    @property
    def peer_path_ids(self) -> tuple[bytes, ...]:
        """What a revocation list would name the peer's certificates by; none where there is no TLS (yet)."""
        return () if self._event is None else self._event.peer_path_ids

    @property
    def secured_by(self) -> HandshakeCompleted | None:
        """What was negotiated; None where there is no TLS (yet)."""
        return self._event

    def identified_as(self, connection_id: bytes) -> None:
        """The connection's id, which stands in both sidecars' logs."""
        self._connection_id = connection_id.hex()

    def becomes_tunnel(self) -> None:
        """It is no application's connection: it carries many."""
        self._is_tunnel = True
        self._sinks.metrics.connection_gone(self._direction)
        self._sinks.metrics.tunnel_opened(self._direction)

    def abandon(self) -> None:
        """It was to become a tunnel and did not; those who wanted it tell why."""
        self._closed = True
        self._sinks.metrics.tunnel_gone(self._direction)

    def dismiss(self) -> None:
        """It was nobody's but ours, which comes every few seconds: nothing is said of it."""
        self._closed = True
        self._sinks.metrics.connection_gone(self._direction)

    def decided(self, policy: str | None, notes: Mapping[str, str] | None = None) -> None:
        """Policies were asked: `policy` ("namespace/name") decided, and `notes` say what others would have done."""
        self._policy = policy
        self._notes = notes

    def noted(self, notes: Mapping[str, str]) -> None:
        """Fields of the connection's last line besides those that each has."""
        self._notes = notes if self._notes is None else {**self._notes, **notes}

    def received_as(self, what: str) -> None:
        """What came in: "mesh", or what it was that is not TLS of the mesh."""
        self._received_as = what

    @property
    def what_came(self) -> str:
        """What `received_as` was told; "" before that."""
        return self._received_as or ""

    def secured(self, event: HandshakeCompleted) -> None:
        """Its TLS, or that of the tunnel which carries it, is another record's handshake: `event`."""
        self._event = event

    def going_to(self, destination: Endpoint) -> None:
        """The destination is known."""
        self._destination = destination

    def handshake_completed(self, result: HandshakeResult) -> None:
        """TLS stands: count it, and write the "handshake" line."""
        event = self._event = result.event
        self._handshake_ms = round(result.seconds * 1000, 3)
        metrics = self._sinks.metrics
        metrics.handshake(self._direction, event.profile, event.group, event.signature_scheme, "ok")
        metrics.handshake_took(self._direction, result.seconds)
        if event.resumed:
            metrics.resumed(self._direction)
        self._write_handshake_line(event, self._handshake_ms)

    def handshake_failed(self, reason: str) -> None:
        """The handshake was refused by one of the two sides."""
        self._sinks.metrics.handshake(self._direction, self._profile, "-", "-", reason)

    def relaying(self) -> None:
        """Both sides stand; bytes may flow."""
        peer = self._event.peer_identity if self._event else "-"
        self._counters = self._sinks.metrics.tcp(self._direction, self._local, peer, self._event is not None)
        self._counters.opened.inc()
        if self._event is None:
            self._sinks.metrics.plaintext(self._direction)

    def carried(self, from_application: int, from_wire: int) -> None:
        """So many bytes of plaintext went each way since the connection began. May be called at any time."""
        outbound = self._direction is Direction.OUTBOUND
        received, sent = (from_application, from_wire) if outbound else (from_wire, from_application)
        if self._counters is not None:
            self._counters.received.inc(received - self._bytes[0])
            self._counters.sent.inc(sent - self._bytes[1])
        self._bytes = (received, sent)

    def close(self, verdict: Verdict) -> None:
        """The connection is over. Its end is written once, now or soon; a second call is a bug."""
        if self._closed:
            raise MisuseError("a connection ends once")
        self._closed = True
        ended, endings = self._sinks.monotonic(), self._sinks.endings
        if endings is not None:
            if verdict is CLOSED:
                endings.add(self, ended)
                return
            endings.flush()  # what went wrong is said at once, and behind what was before it
        self.tell(verdict, self._sinks.now(), ended)

    def tell(self, verdict: Verdict, when: datetime.datetime, ended: float) -> None:
        """Write the end of a connection that was closed at `when`, and at `ended` by the monotonic clock: the call of
        whoever does that for many (endings.py).
        """
        metrics = self._sinks.metrics
        if self._is_tunnel:
            metrics.tunnel_gone(self._direction)
        else:
            metrics.connection_gone(self._direction)
        if self._counters is not None:
            self._counters.count_closed(verdict.flag)
        if verdict.refused and not self._is_tunnel:  # those that it was to carry are refused, one by one
            metrics.refused(self._direction, verdict.reason)
            self._sinks.refusals.warn(lambda: self._sentence(verdict))
        self._write_last_line(verdict, when, ended)

    def describe(self) -> Fields:
        """What is known so far, for an operator who asks: as in the log's last line."""
        return {
            **self._head("tunnel" if self._is_tunnel else "connection", _written(self._sinks.now())),
            **self._negotiated(),
            "bytes_sent": self._bytes[1],
            "bytes_received": self._bytes[0],
            **self._at_the_gate(),
        }

    def _write_handshake_line(self, event: HandshakeCompleted, took_ms: float) -> None:
        time, prepared = _written(self._sinks.now()), self._sinks.prepared

        def fields() -> Fields:
            return {**self._head("handshake", time), **self._negotiated()}

        if prepared is None or not self._connection_id:
            self._sinks.access_log.write(fields())
            return
        kind = (OF_HANDSHAKE, _kind_of(event), self._direction, self._destination, self._local)
        prepared.write(OF_HANDSHAKE, kind, (time, str(self._source), self._connection_id, took_ms), fields)

    def _write_last_line(self, verdict: Verdict, when: datetime.datetime, ended: float) -> None:
        time, prepared = _written(when), self._sinks.prepared
        duration_ms = round((ended - self._opened) * 1000, 3)

        def fields() -> Fields:
            return self._last_line(verdict, time, duration_ms)

        event, took_ms, source, connection_id = self._event, self._handshake_ms, str(self._source), self._connection_id
        # Nearly all end well, and have a name that was agreed on.
        if prepared is None or verdict is not CLOSED or not connection_id or event is None or self._is_tunnel:
            self._sinks.access_log.write(fields())
            return
        received, sent = self._bytes
        rest = (self._direction, self._destination, self._local, self._policy, self._received_as,
                tuple(self._notes.items()) if self._notes else None)  # fmt: skip
        if took_ms is None:  # the handshake is that of a tunnel, and of all its streams
            own = (time, source, connection_id, duration_ms, sent, received)
            prepared.write(OF_STREAM, (id(event), *rest), own, fields, kept=event)
        else:
            whole = (time, source, connection_id, duration_ms, took_ms, sent, received)
            prepared.write(OF_CONNECTION, (OF_CONNECTION, _kind_of(event), *rest), whole, fields)

    def _last_line(self, verdict: Verdict, time: str, duration_ms: float) -> Fields:
        return {
            **self._head("tunnel" if self._is_tunnel else "connection", time),
            "duration_ms": duration_ms,
            **self._negotiated(),
            "bytes_sent": self._bytes[1],
            "bytes_received": self._bytes[0],
            "flag": verdict.flag.value,
            "reason": verdict.reason,
            "message": verdict.message,
            **self._at_the_gate(),
        }

    def _at_the_gate(self) -> Fields:
        return {"policy": self._policy, "received_as": self._received_as, **(self._notes or {})}

    def _head(self, event: str, time: str) -> Fields:
        return {
            "time": time,
            "event": event,
            "direction": self._direction.value,
            "source": str(self._source),
            "destination": str(self._destination) if self._destination else None,
            "local_identity": self._local,
            "connection_id": self._connection_id or None,
        }

    def _negotiated(self) -> Fields:
        event = self._event
        return {
            "peer_identity": event.peer_identity if event else None,
            "profile": event.profile if event else None,
            "group": event.group if event else None,
            "signature": event.signature_scheme if event else None,
            "cipher_suite": event.cipher_suite if event else None,
            "resumed": event.resumed if event else False,
            "handshake_ms": self._handshake_ms,
        }

    def _sentence(self, verdict: Verdict) -> str:
        to = f" to {self._destination}" if self._destination else ""
        peer = f", peer {self._event.peer_identity}" if self._event else ""
        return printable(
            f"refused {self._direction.value} connection from {self._source}{to} "
            f"({verdict.reason}, we are {self._local}{peer}): {verdict.message}"
        )


def _kind_of(event: HandshakeCompleted) -> tuple[object, ...]:
    """What lines say of a handshake, and many have in common."""
    return (event.peer_identity, event.profile, event.group, event.signature_scheme, event.cipher_suite, event.resumed)


def _written(time: datetime.datetime) -> str:
    return time.isoformat(timespec="milliseconds")
