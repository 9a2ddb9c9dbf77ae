"""The client's end of a tunnel: it takes applications' connections while it is young and its credentials are ours."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pqtls import Session
from pqtls.errors import PeerError
from proxy import sockets
from proxy.config import Endpoint
from proxy.credentials import Bundle
from proxy.handshake import HandshakeFailed
from proxy.phases import Services
from proxy.record import ConnectionRecord
from proxy.relay import End
from proxy.tunnels import moving
from proxy.tunnels.carrying import Carried
from proxy.tunnels.dialling import dial
from proxy.tunnels.frames import CONNECTION_ID_SIZE, Opening
from proxy.tunnels.kept import KeptTunnel
from proxy.tunnels.moving import Dialled
from proxy.tunnels.stream import Stream
from proxy.tunnels.tunnel import Tunnel

_log = logging.getLogger("qbitel.proxy")


@dataclass(frozen=True, slots=True)
class Single:
    """A connection to a sidecar that knows no tunnels, its handshake done: for one connection of an application."""

    dialled: Dialled


class ClientTunnel(KeptTunnel):
    """The owner of a client's tunnel to `destination`, made with `bundle`."""

    def __init__(
        self,
        services: Services,
        dialled: Dialled,
        record: ConnectionRecord,
        *,
        bundle: Bundle,
        destination: Endpoint,
        leave: Callable[[ClientTunnel], None],
    ) -> None:
        """`leave` is called once, when it takes no more streams."""
        super().__init__(services, dialled.result.event, record)
        self._dialled = dialled
        self._bundle = bundle
        self._destination = destination
        self._address = sockets.peer_name(dialled.wire)
        self._leave = leave
        self._retired = False
        # Where this very server can be dialled, as far as it said so.
        self._server: Endpoint | None = None
        self._moves: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Make the tunnel, which may end at once."""
        dialled, services = self._dialled, self.services
        tunnel = Tunnel(services.reactor, services.buffers, dialled.wire, dialled.connection, self, is_client=True)
        self.start(tunnel, dialled.result.first_plaintext)

    @property
    def takes_streams(self) -> bool:
        """Whether a new stream may be opened in it."""
        return not (self._retired or self.tunnel.draining or self.tunnel.ended) and self._is_current

    @property
    def _is_current(self) -> bool:
        """Whether it was made with the credentials and the trust of this moment."""
        return self._bundle is self.services.credentials.current

    def carry(self, application: socket.socket, record: ConnectionRecord) -> None:
        """Take over an application's connection, with its record and its end."""
        connection_id = os.urandom(CONNECTION_ID_SIZE)
        carried = Carried(self, record, connection_id)
        self.tunnel.open(
            Opening(self._address, connection_id),
            lambda stream_id: carried.stream(stream_id, application, connecting=False),
        )

    def retire(self) -> None:
        """No more streams in here; it ends with its last."""
        if not self._retired and not self.tunnel.ended:
            self._retired = True
            self._leave(self)
            if not self.tunnel.streams:
                self.tunnel.close()

    # -- as the registry sees it --------------------------------------------------------------------------------

    def sweep(self, now: float, idle_timeout: float) -> None:
        """As every tunnel; and make room for a younger one."""
        if now - self.born >= self.services.limits.tunnel_max_age or not self._is_current:
            self.retire()
        if not self.tunnel.ended:
            super().sweep(now, idle_timeout)

    def spare_seconds(self) -> float:
        """How long it is kept without a stream."""
        return self.services.limits.tunnel_idle_timeout

    def start_draining(self) -> None:
        """The process is about to end: so does this, with its last stream."""
        self.retire()

    # -- as the tunnel sees it ----------------------------------------------------------------------------------

    def on_session(self, session: Session) -> None:
        """For the next tunnel to the same destination."""
        self._dialled.keep_session(session)

    def on_address(self, address: Endpoint) -> None:
        """Where bulk is to be moved to. An address inside this machine, of a server that is not, is nobody's."""
        told = ipaddress.ip_address(address.host)
        if address.host == self._address.host or not (told.is_loopback or told.is_unspecified or told.is_multicast):
            self._server = address

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

    def on_bulk(self, stream: Stream, connection_id: bytes) -> None:
        """Give it a connection of its own, if the server can be found."""
        if self._server is not None:
            task = self.services.loop.create_task(self._move(stream, connection_id, self._server))
            self._moves.add(task)
            task.add_done_callback(self._moves.discard)

    async def _move(self, stream: Stream, connection_id: bytes, server: Endpoint) -> None:
        """Whatever goes wrong before both sides have agreed leaves the stream where it is."""
        try:
            dialled, record = await dial(
                self.services, server, self._bundle, lambda bundle: bundle.move_client, sessions_of=self._destination
            )
        except (PeerError, HandshakeFailed, sockets.ConnectFailed, OSError) as error:
            _log.debug("bulk stays in its tunnel: %s", error)
            return
        record.abandon()  # its bytes are in the record of the connection that moves
        moved = False
        try:
            same = dialled.result.event.peer_identity == self.event.peer_identity
            moved = same and await moving.ask(self.services, stream, connection_id, dialled)
        except (PeerError, HandshakeFailed, OSError, TimeoutError) as error:
            _log.debug("bulk stays in its tunnel: %s", error)
        finally:
            if not moved:
                sockets.reset(dialled.wire)
        if not moved:
            # Another worker, or another pod, answers there: asking again would be answered by chance.
            self._server = None
