"""One application's connection as a stream of a tunnel: its record, its place in the registry, its stream."""

from __future__ import annotations

import socket
from collections.abc import Callable

from proxy import reasons
from proxy.record import ConnectionRecord
from proxy.registry import LiveConnection
from proxy.relay import Outcome
from proxy.tunnels.kept import KeptTunnel
from proxy.tunnels.stream import Stream


def carry(
    kept: KeptTunnel, stream_id: int, sock: socket.socket, record: ConnectionRecord, *, connecting: bool
) -> Stream:
    """A stream of `kept`, not yet started, whose end writes `record`; no task waits for it."""
    services = kept.services
    live = LiveConnection(record, services.loop.time(), _nothing)

    def on_end(outcome: Outcome) -> None:
        record.carried(outcome.from_application, outcome.from_wire)
        record.close(reasons.of_outcome(outcome, services.limits.idle_timeout))
        services.registry.remove(live)

    stream = stream_of(kept, stream_id, sock, record, on_end, connecting=connecting)
    live.relaying(stream)
    services.registry.add(live)
    return stream


def stream_of(
    kept: KeptTunnel,
    stream_id: int,
    sock: socket.socket,
    record: ConnectionRecord,
    on_end: Callable[[Outcome], None],
    *,
    connecting: bool,
) -> Stream:
    """A stream of `kept`, not yet started."""
    record.secured(kept.event)
    kept.taken()
    return Stream(kept.services.reactor, kept.tunnel, stream_id, sock, on_end, _nothing, connecting=connecting)


def _nothing() -> None:
    pass
