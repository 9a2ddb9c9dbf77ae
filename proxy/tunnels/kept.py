"""A tunnel as the registry keeps it: asked for signs of life, closed when nobody needs it, drained, reset, recorded.

What both ends have in common; pool.py and serving.py add what a client's and a server's end decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pqtls import Session
from pqtls.events import HandshakeCompleted
from proxy import reasons
from proxy.access_log import Fields
from proxy.config import Direction, Endpoint
from proxy.record import ConnectionRecord
from proxy.relay import End, Outcome
from proxy.tunnels.frames import Opening, ResetCode
from proxy.tunnels.stream import Stream
from proxy.tunnels.tunnel import Tunnel

if TYPE_CHECKING:
    from proxy.phases import Services


class KeptTunnel:
    """The owner of a tunnel, in the registry from its making to its end."""

    def __init__(
        self,
        services: Services,
        event: HandshakeCompleted,
        record: ConnectionRecord,
    ) -> None:
        self.services = services
        self.event = event
        self.record = record
        self.tunnel: Tunnel
        now = services.loop.time()
        self.born = now
        self._empty_since: float | None = now
        self._silent_since = now
        self._asked = False
        self._failure: Exception | None = None
        services.registry.add(self)

    def take_failure(self) -> Exception | None:
        """What ended it, for whoever raises that: nothing is to know an error that knows it."""
        failure, self._failure = self._failure, None
        return failure

    def start(self, tunnel: Tunnel, first: bytes = b"") -> None:
        """Take `tunnel`, of which this is the owner, and begin."""
        self.tunnel = tunnel
        tunnel.start(first)

    # -- as the registry sees it (registry.Live) ----------------------------------------------------------------

    def sweep(self, now: float, _idle_timeout: float) -> None:
        """Look after it, every few seconds."""
        limits = self.services.limits
        self.tunnel.tidy()
        if self.tunnel.streams:
            self._look_for_life(now, limits.tunnel_silence)
        elif self._empty_since is not None and now - self._empty_since >= self.spare_seconds():
            self.tunnel.close()

    def spare_seconds(self) -> float:
        """How long it is kept without a stream. The client closes first: only it knows that it opens no more."""
        return 2 * self.services.limits.tunnel_idle_timeout

    def end_if_revoked(self, revoked: frozenset[bytes]) -> bool:
        """Reset it, with all its streams, where its peer is among the `revoked`."""
        if self.tunnel.ended or revoked.isdisjoint(self.event.peer_path_ids):
            return False
        self.tunnel.abort(End.REVOKED)
        return True

    @property
    def direction(self) -> Direction:
        """Who dialled: the other side, or we."""
        return self.record.direction

    def start_draining(self) -> None:
        """The process is about to end."""
        self.tunnel.drain()

    def finish(self) -> None:
        """No connection is left: the other side hears that this is an end and no accident."""
        if not self.tunnel.ended and not self.tunnel.streams:
            self.tunnel.close()

    def describe(self, now: float) -> Fields:
        """What an operator is shown of it; `now` is the loop's time."""
        return {
            **self.record.describe(),
            "streams": len(self.tunnel.streams),
            "draining": self.tunnel.draining,
            "age_s": round(now - self.born, 1),
            "idle_s": round(now - self._empty_since, 1) if self._empty_since is not None else None,
        }

    def end(self) -> None:
        """Reset it now."""
        self.tunnel.abort(End.DRAINED)

    def _look_for_life(self, now: float, patience: float) -> None:
        if self.tunnel.heard:
            self.tunnel.heard = self._asked = False
            self._silent_since = now
        elif now - self._silent_since >= patience and not self._asked:
            self._asked = True
            self.tunnel.ping()
        elif now - self._silent_since >= 2 * patience:
            self.tunnel.abort(End.PEER_SILENT)

    # -- as the tunnel sees it (tunnel.Owner) -------------------------------------------------------------------

    def on_open(self, _tunnel: Tunnel, _stream_id: int, _opening: Opening) -> ResetCode | None:
        """A server's tunnel is asked; a client's never is."""
        raise NotImplementedError

    def on_bulk(self, stream: Stream, connection_id: bytes) -> None:
        """A client moves it; a server waits until it is asked."""

    def on_stream_moved(self, connection_id: bytes) -> None:
        """A stream goes on in a connection of its own."""

    def on_stream_end(self, connection_id: bytes) -> None:
        """A stream is over."""

    def on_address(self, address: Endpoint) -> None:
        """A client's business."""

    def on_session(self, session: Session) -> None:
        """A client's business."""

    def on_draining(self, tunnel: Tunnel) -> None:
        """A client's business."""

    def on_empty(self, _tunnel: Tunnel) -> None:
        """The last stream has gone."""
        self._empty_since = self.services.loop.time()

    def on_end(self, _tunnel: Tunnel, end: End, error: Exception | None) -> None:
        """It is over: write its record."""
        # Without the traceback, which knows us: what knows each other waits for the garbage collector.
        self._failure = None if error is None else error.with_traceback(None)
        self.services.registry.remove(self)
        self.record.close(reasons.of_outcome(Outcome(end, 0, 0, error), self.services.limits.idle_timeout))

    def taken(self) -> None:
        """A stream begins."""
        if self.services.registry.draining and self.direction is Direction.INBOUND:
            # This one dialled us since: it must have opened a stream before it is told, or it would have none to give.
            self.tunnel.drain()
        if self._empty_since is not None:
            self._empty_since = None
            self._silent_since = self.services.loop.time()
            self._asked = False
