"""The server's end of a tunnel: each stream that the other sidecar opens is dialled to the application here."""

from __future__ import annotations

import asyncio
from typing import Final

from pqtls.events import HandshakeCompleted
from proxy import reasons, sockets
from proxy.config import Direction, Endpoint
from proxy.phases import Services
from proxy.policy.gate import facts_of
from proxy.reasons import Flag, Refused, Verdict
from proxy.record import ConnectionRecord
from proxy.relay import End
from proxy.tunnels.by_stream import ByStream
from proxy.tunnels.carrying import Carried
from proxy.tunnels.frames import Opening, ResetCode
from proxy.tunnels.kept import KeptTunnel
from proxy.tunnels.tunnel import Tunnel

# Seconds behind DRAIN in which streams are taken that were under way, and many times that for a slow network.
_GRACE: Final = 30.0
# uvloop's clock and its timers count milliseconds, and round: a timer may come by so much (seconds) too early.
_TOO_EARLY: Final = 0.001
# What the client is told where the gate refuses a stream.
_CODES: Final = {
    Flag.DENY: ResetCode.DENIED,
    Flag.RATE_LIMITED: ResetCode.RATE_LIMITED,
    Flag.CIRCUIT_OPEN: ResetCode.CONNECTION_LIMIT,
}


class ServedTunnel(KeptTunnel):
    """The owner of a server's tunnel. Every stream goes to `application`, an address, from the address `source`; or,
    where the tunnel was dialled `by_stream`, where each one says."""

    def __init__(
        self,
        services: Services,
        event: HandshakeCompleted,
        record: ConnectionRecord,
        *,
        peer: Endpoint,
        application: Endpoint,
        source: str | None,
        by_stream: ByStream | None = None,
    ) -> None:
        super().__init__(services, event, record)
        self._peer = peer
        self._application = application
        self._source = source
        self._by_stream = by_stream
        self._facts = facts_of(peer, application, event)  # the same for every stream
        self._connecting: dict[int, float] = {}  # streams whose application has not answered yet → until when it may
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False  # for new streams; those that are there go on

    def sweep(self, now: float, idle_timeout: float) -> None:
        """As every tunnel; and see whether its peer may still open streams."""
        super().sweep(now, idle_timeout)
        # Whoever was let in by a certificate that has ended since, or under roots that were replaced, must show another
        # one. A sidecar of ours does when it is told; whoever does not is refused.
        age, oldest = now - self.born, self.services.limits.tunnel_max_age
        valid_until = self.event.peer_valid_until
        has_expired = valid_until is not None and self.services.sinks.now() > valid_until
        if age >= oldest or has_expired:
            self.tunnel.drain()
        self._is_over = age >= oldest + _GRACE or has_expired
        self._connecting = {number: due for number, due in self._connecting.items() if self._is_connecting(number)}

    def on_open(self, tunnel: Tunnel, stream_id: int, opening: Opening) -> ResetCode | None:
        """Dial the application. It all happens in this turn, but for the application's answer."""
        services = self.services
        record = ConnectionRecord(
            services.sinks, Direction.INBOUND, self._peer, services.credentials.current.identity, services.profile
        )
        carried = Carried(self, record, opening.connection_id)
        application, facts = self._application, self._facts
        record.received_as("mesh")
        if self._by_stream is not None:
            record.going_to(opening.destination)
            try:
                application = self._by_stream.application(opening)
            except Refused as refused:
                return _refuse(record, refused.verdict, ResetCode.NO_DESTINATION)
            facts = facts_of(self._peer, application, self.event)
        record.going_to(application)
        if self._is_over:
            return _refuse(record, reasons.TOO_OLD, ResetCode.DRAINED)
        if len(services.registry) >= services.limits.max_connections:
            return _refuse(record, reasons.TOO_MANY, ResetCode.CONNECTION_LIMIT)
        if not services.shares.take(self.event.peer_identity):
            return _refuse(record, reasons.TOO_MANY_OF_ONE, ResetCode.CONNECTION_LIMIT)
        try:
            standing = services.gate.admit(facts, record, is_secure=True)
        except Refused as refused:
            services.shares.give_back(self.event.peer_identity)
            return _refuse(record, refused.verdict, _CODES[refused.verdict.flag])
        try:
            sock = sockets.start_connecting(application, self._source)
        except OSError as error:
            services.shares.give_back(self.event.peer_identity)
            if standing is not None:
                standing.leave()
            failed = sockets.connect_failed(application, error, self._source)
            return _refuse(record, reasons.of_error(failed), ResetCode.CONNECT_FAILED)
        stream = carried.stream(stream_id, sock, connecting=True, standing=standing)
        services.movable.add(opening.connection_id, stream, self.event)
        tunnel.adopt(stream)
        if stream.is_connecting:  # an application in the same pod has answered before this
            self._wait_for(stream_id)
        return None

    def on_end(self, tunnel: Tunnel, end: End, error: Exception | None) -> None:
        """As every tunnel; nobody is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().on_end(tunnel, end, error)

    def _wait_for(self, stream_id: int) -> None:
        """One timer for all streams of the tunnel: it comes for the oldest of them."""
        loop, patience = self.services.loop, self.services.limits.connect_timeout
        self._connecting[stream_id] = loop.time() + patience
        if self._timer is None:
            self._timer = loop.call_later(patience, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        now = self.services.loop.time() + _TOO_EARLY
        for stream_id, due in tuple(self._connecting.items()):
            if due > now and self._is_connecting(stream_id):
                self._timer = self.services.loop.call_later(due - now, self._give_up)
                return
            del self._connecting[stream_id]
            if self._is_connecting(stream_id):
                self.tunnel.streams[stream_id].abort(End.CONNECT_TIMEOUT)
            if self.tunnel.ended:  # what is told of one may end them all
                return

    def _is_connecting(self, stream_id: int) -> bool:
        stream = self.tunnel.streams.get(stream_id)
        return stream is not None and stream.is_connecting

    def on_stream_moved(self, connection_id: bytes) -> None:
        """Nobody can ask for it again."""
        self.services.movable.remove(connection_id)

    def on_stream_end(self, connection_id: bytes) -> None:
        """Nobody can ask for it any more."""
        self.services.movable.remove(connection_id)
        self.services.shares.give_back(self.event.peer_identity)


def _refuse(record: ConnectionRecord, verdict: Verdict, code: ResetCode) -> ResetCode:
    record.close(verdict)
    return code
