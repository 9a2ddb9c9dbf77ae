"""The client's ends of tunnels: who has one to a destination, who waits for one, and when there should be another.

The first connection to a destination dials; others that come meanwhile wait for the same. Where the other sidecar knows
no tunnels, its connections are left to the caller, one TLS connection each.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import logging
import os
import socket
from collections.abc import Callable
from typing import Final

from mesh import names
from pqtls import ClientConnection, Session
from pqtls.errors import PeerError
from pqtls.events import HandshakeCompleted
from proxy import sockets
from proxy.config import Direction, Endpoint
from proxy.credentials import Bundle
from proxy.handshake import HandshakeFailed
from proxy.phases import Services, secure
from proxy.record import ConnectionRecord
from proxy.relay import End
from proxy.tunnels.carrying import carry
from proxy.tunnels.frames import Opening
from proxy.tunnels.kept import KeptTunnel
from proxy.tunnels.stream import Stream
from proxy.tunnels.tunnel import Tunnel

# A destination that is busy gets so many tunnels at most, another one when all it has carry so many streams. One tunnel
# is one core on the other side and one pod of a Service; each costs a handshake.
MAX_TUNNELS: Final = 4
STREAMS_EACH: Final = 32
# Destinations whose sidecars know no tunnels: remembered for so long, and so many.
_SINGLE_SECONDS: Final = 300.0
_MOST_SINGLE: Final = 1024

_log = logging.getLogger("qbitel.proxy")


class ClientTunnel(KeptTunnel):
    """The owner of a client's tunnel to `destination`, made with `bundle`."""

    def __init__(
        self,
        services: Services,
        event: HandshakeCompleted,
        record: ConnectionRecord,
        *,
        bundle: Bundle,
        address: Endpoint,
        keep_session: Callable[[Session], None],
        leave: Callable[[ClientTunnel], None],
    ) -> None:
        """`address` is where it leads; `leave` is called once, when it takes no more streams."""
        super().__init__(services, event, record)
        self._bundle = bundle
        self._address = address
        self._keep_session = keep_session
        self._leave = leave
        self._retired = False

    @property
    def takes_streams(self) -> bool:
        """Whether a new stream may be opened in it."""
        return not (self._retired or self.tunnel.draining or self.tunnel.ended) and self.is_current

    @property
    def is_current(self) -> bool:
        """Whether it was made with the credentials and the trust of this moment."""
        return self._bundle is self.services.credentials.current

    def carry(self, application: socket.socket, record: ConnectionRecord) -> None:
        """Take over an application's connection, with its record and its end."""
        connection_id = os.urandom(16)
        record.identified_as(connection_id)
        make = functools.partial(self._stream, application, record)
        self.tunnel.open(Opening(self._address, connection_id), make)

    def _stream(self, application: socket.socket, record: ConnectionRecord, stream_id: int) -> Stream:
        return carry(self, stream_id, application, record, connecting=False)

    def retire(self) -> None:
        """No more streams in here; it ends with its last."""
        if not self._retired and not self.tunnel.ended:
            self._retired = True
            self._leave(self)
            if not self.tunnel.streams:
                self.tunnel.close()

    def sweep(self, now: float, idle_timeout: float) -> None:
        """As every tunnel; and make room for a younger one."""
        if now - self.born >= self.services.limits.tunnel_max_age or not self.is_current:
            self.retire()
        if not self.tunnel.ended:
            super().sweep(now, idle_timeout)

    def spare_seconds(self) -> float:
        """How long it is kept without a stream."""
        return self.services.limits.tunnel_idle_timeout

    def start_draining(self) -> None:
        """The process is about to end: so does this, with its last stream."""
        self.retire()

    def on_session(self, session: Session) -> None:
        """For the next tunnel to the same destination."""
        self._keep_session(session)

    def on_draining(self, tunnel: Tunnel) -> None:
        """The other side is about to end."""
        self.retire()

    def on_empty(self, tunnel: Tunnel) -> None:
        """The last stream has gone."""
        super().on_empty(tunnel)
        if self._retired:
            tunnel.close()

    def on_end(self, tunnel: Tunnel, end: End, error: Exception | None) -> None:
        """It is over."""
        if not self._retired:
            self._retired = True
            self._leave(self)
        super().on_end(tunnel, end, error)


@dataclasses.dataclass(frozen=True, slots=True)
class Single:
    """A connection to a sidecar that knows no tunnels, its handshake done: for one connection of an application."""

    event: HandshakeCompleted
    wire: socket.socket
    connection: ClientConnection
    first: bytes
    keep_session: Callable[[Session], None]


class _Place:
    """What there is for one destination."""

    __slots__ = ("dialling", "tunnels")

    def __init__(self) -> None:
        self.tunnels: list[ClientTunnel] = []
        self.dialling: asyncio.Future[ClientTunnel | None] | None = None


class TunnelPool:
    """The tunnels of one process, by destination as the application dials it."""

    def __init__(self) -> None:
        self._places: dict[Endpoint, _Place] = {}
        self._single: collections.OrderedDict[Endpoint, float] = collections.OrderedDict()
        self._background: set[asyncio.Task[None]] = set()

    def warm(self, services: Services, destination: Endpoint) -> ClientTunnel | None:
        """The tunnel that a new connection to `destination` goes into, if one stands. A busy one gets company."""
        place = self._places.get(destination)
        if place is None:
            return None
        best: ClientTunnel | None = None
        for kept in place.tunnels:
            if kept.takes_streams and (best is None or len(kept.tunnel.streams) < len(best.tunnel.streams)):
                best = kept
        if best is not None and len(best.tunnel.streams) >= STREAMS_EACH and len(place.tunnels) < MAX_TUNNELS:
            self._dial_beside(services, destination, place)
        return best

    async def obtain(self, services: Services, destination: Endpoint) -> ClientTunnel | Single | None:
        """A tunnel to `destination`, dialled where there is none; None: the other sidecar knows none.

        Whoever finds that out gets the connection that it was found out with. Raises what connecting and the handshake
        raise.
        """
        if self._single.get(destination, 0.0) > services.loop.time():
            return None
        while (kept := self.warm(services, destination)) is None:
            place = self._places.setdefault(destination, _Place())
            if place.dialling is None:
                return await self._dial(services, destination, place)
            if await asyncio.shield(place.dialling) is None:
                return None
        return kept

    async def _dial(self, services: Services, destination: Endpoint, place: _Place) -> ClientTunnel | Single:
        """Dial, for all who wait meanwhile too."""
        dialling = place.dialling = services.loop.create_future()
        dialling.add_done_callback(_look_at)
        try:
            made = await self._connect(services, destination, place)
        except BaseException as error:
            given_up = isinstance(error, asyncio.CancelledError)
            dialling.set_exception(sockets.ConnectFailed("the sidecar ends") if given_up else error)
            raise
        finally:
            place.dialling = None
            self._forget_empty(destination, place)
        dialling.set_result(made if isinstance(made, ClientTunnel) else None)
        return made

    async def _connect(self, services: Services, destination: Endpoint, place: _Place) -> ClientTunnel | Single:
        bundle = services.credentials.current
        key = (destination, bundle.settings.accept_identity, bundle.credential.chain)
        keep = functools.partial(services.sessions.keep, key)
        wire = await sockets.connect(services.loop, destination, services.limits.connect_timeout)
        record = ConnectionRecord(
            services.sinks, Direction.OUTBOUND, sockets.own_name(wire), bundle.identity, services.profile
        )
        record.going_to(destination)
        record.becomes_tunnel()
        try:
            sessions = services.sessions.take(key, bundle.settings.now())
            connection = ClientConnection(dataclasses.replace(bundle.tunnel_client, sessions=sessions))
            result = await secure(services, record, wire, connection)
        except BaseException:
            record.abandon()
            sockets.reset(wire)
            raise
        for session in result.sessions:
            keep(session)
        if result.event.alpn != names.ALPN_TUNNEL:
            record.abandon()
            self._remember_single(destination, services.loop.time())
            return Single(result.event, wire, connection, result.first_plaintext, keep)
        kept = ClientTunnel(
            services,
            result.event,
            record,
            bundle=bundle,
            address=sockets.peer_name(wire),
            keep_session=keep,
            leave=functools.partial(self._left, destination, place),
        )
        self._places[destination] = place
        place.tunnels.append(kept)
        kept.start(
            Tunnel(services.reactor, services.buffers, wire, connection, kept, is_client=True), result.first_plaintext
        )
        if kept.tunnel.ended:  # refused by what came with the handshake's end
            raise kept.failure or HandshakeFailed("the other sidecar closed the tunnel at once", "handshake_reset")
        return kept

    def _dial_beside(self, services: Services, destination: Endpoint, place: _Place) -> None:
        """Another tunnel, for connections to come. Where that fails, the ones that are there go on."""
        if place.dialling is None:
            task = services.loop.create_task(self._try_to_dial(services, destination, place))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _try_to_dial(self, services: Services, destination: Endpoint, place: _Place) -> None:
        try:
            made = await self._dial(services, destination, place)
            if isinstance(made, Single):  # another sidecar has taken the place of the one that knew tunnels
                sockets.reset(made.wire)
        except (PeerError, HandshakeFailed, sockets.ConnectFailed, OSError) as error:
            _log.info("another tunnel to %s could not be had: %s", destination, error)

    # -- bookkeeping --------------------------------------------------------------------------------------------

    def _left(self, destination: Endpoint, place: _Place, kept: ClientTunnel) -> None:
        """`kept` takes no more streams."""
        place.tunnels.remove(kept)
        self._forget_empty(destination, place)

    def _forget_empty(self, destination: Endpoint, place: _Place) -> None:
        if not place.tunnels and place.dialling is None and self._places.get(destination) is place:
            del self._places[destination]

    def _remember_single(self, destination: Endpoint, now: float) -> None:
        self._single[destination] = now + _SINGLE_SECONDS
        self._single.move_to_end(destination)
        if len(self._single) > _MOST_SINGLE:
            self._single.popitem(last=False)


def _look_at(dialling: asyncio.Future[ClientTunnel | None]) -> None:
    """Nobody may have waited for it: then its error was told to whoever dialled."""
    if not dialling.cancelled():
        dialling.exception()
