"""One application's connection as a stream of a tunnel: its record, its place in the registry, its stream."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from proxy import reasons
from proxy.policy.standing import Standing
from proxy.record import ConnectionRecord
from proxy.registry import LiveConnection
from proxy.relay import Outcome, Relay
from proxy.tunnels.kept import KeptTunnel
from proxy.tunnels.stream import Stream

if TYPE_CHECKING:
    from proxy.peers.passage import Passage


class Carried:
    """The owner of a stream of `kept`, in the registry from its making to its end; no task waits for it."""

    __slots__ = ("_has_moved", "_kept", "_live", "_passage", "connection_id", "record")

    def __init__(
        self, kept: KeptTunnel, record: ConnectionRecord, connection_id: bytes, passage: Passage | None = None
    ) -> None:
        """`passage` is a client's, and hears how it goes."""
        self._kept = kept
        self._passage = passage
        self._has_moved = False
        self.record = record
        self.connection_id = connection_id
        self._live = LiveConnection(record, kept.services.loop.time(), _nothing)
        self._live.tunnel = kept.record.connection_id
        record.identified_as(connection_id)
        record.secured(kept.event)

    def stream(
        self, stream_id: int, sock: socket.socket, *, connecting: bool, standing: Standing | None = None
    ) -> Stream:
        """The stream, not yet started. `standing` is a server's: why the gate let it in."""
        kept = self._kept
        kept.taken()
        stream = Stream(kept.services.reactor, kept.tunnel, stream_id, sock, self, connecting=connecting)
        self._live.standing = standing
        self._live.relaying(stream)
        kept.services.registry.add(self._live)
        kept.services.sinks.metrics.stream_opened(self.record.direction)
        return stream

    # -- as the stream sees it (stream.Owner) -------------------------------------------------------------------

    def on_connected(self) -> None:
        """The application on the other side is there."""
        if self._passage is not None:
            self._passage.succeeded()

    def on_bulk(self, stream: Stream) -> None:
        """Only a client can dial."""
        self._kept.on_bulk(stream, self.connection_id)

    def on_moved(self, relay: Relay) -> None:
        """It goes on in a connection of its own."""
        self._live.relay = relay
        self._has_moved = True
        self._live.tunnel = ""
        self._kept.services.sinks.metrics.stream_gone(self.record.direction)
        self._kept.on_stream_moved(self.connection_id)

    def on_end(self, outcome: Outcome) -> None:
        """It is over."""
        services = self._kept.services
        if not self._has_moved:
            services.sinks.metrics.stream_gone(self.record.direction)
        self.record.carried(outcome.from_application, outcome.from_wire)
        self.record.close(reasons.of_outcome(outcome, services.limits.idle_timeout))
        services.registry.remove(self._live)
        if self._passage is not None:
            self._passage.ended(outcome)
        self._kept.on_stream_end(self.connection_id)


def _nothing() -> None:
    pass
