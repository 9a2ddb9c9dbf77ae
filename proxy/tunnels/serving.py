"""The server's end of a tunnel: each stream that the other sidecar opens is dialled to the application here."""

from __future__ import annotations

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
        self._still_connecting: set[int] = set()
        self._is_over = False  # for new streams; those that are there go on

    def sweep(self, now: float, idle_timeout: float) -> None:
        """As every tunnel; and give up on applications that have not answered since the last time."""
        super().sweep(now, idle_timeout)
        # Whoever was let in by a certificate that has ended since, or under roots that were replaced, must show another
        # one. A sidecar of ours does when it is told; whoever does not is refused.
        age, oldest = now - self.born, self.services.limits.tunnel_max_age
        valid_until = self.event.peer_valid_until
        has_expired = valid_until is not None and self.services.sinks.now() > valid_until
        if age >= oldest or has_expired:
            self.tunnel.drain()
        self._is_over = age >= oldest + _GRACE or has_expired
        connecting = {stream.id for stream in self.tunnel.streams.values() if stream.is_connecting}
        for stream_id in connecting & self._still_connecting:
            if stream := self.tunnel.streams.get(stream_id):  # what is told of one may end them all
                stream.abort(End.CONNECT_TIMEOUT)
        self._still_connecting = connecting

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
        return None

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
