"""The client's end of a tunnel: it takes applications' connections while it is young and its credentials are ours."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pqtls import Session
from pqtls.errors import PeerError
from proxy import sockets
from proxy.config import Endpoint
from proxy.credentials import Bundle
from proxy.handshake import HandshakeFailed
from proxy.peers.via import Via
from proxy.phases import Services
from proxy.record import ConnectionRecord
from proxy.relay import End
from proxy.tunnels import moving
from proxy.tunnels.carrying import Carried
from proxy.tunnels.dialling import dial
from proxy.tunnels.frames import CONNECTION_ID_SIZE, Opening, TunnelViolation
from proxy.tunnels.kept import KeptTunnel
from proxy.tunnels.moving import Dialled
from proxy.tunnels.stream import Stream
from proxy.tunnels.tunnel import Tunnel

if TYPE_CHECKING:
    from proxy.peers.passage import Passage

# A tunnel that carried something so lately, in seconds, is replaced before it may take no more: the next connection
# would wait for its handshake. One that nobody has used for longer is left to its end.
_IN_USE_SECONDS: Final = 60.0
# … at this part of its age: a last tenth (a minute) is room for a dozen attempts.
_REPLACED_AT: Final = 0.9
# A server that drains as soon as it is dialled must not be dialled again and again.
_TOO_YOUNG_SECONDS: Final = 5.0

_log = logging.getLogger("qbitel.proxy")


@dataclass(frozen=True, slots=True)
class Single:
    """A connection to a sidecar that knows no tunnels, its handshake done: for one connection of an application."""

    dialled: Dialled


class ClientTunnel(KeptTunnel):
    """The owner of a client's tunnel, made with `bundle` for what `via` says."""

    def __init__(
        self,
        services: Services,
        dialled: Dialled,
        record: ConnectionRecord,
        *,
        bundle: Bundle,
        via: Via,
        leave: Callable[[ClientTunnel], None],
        replace: Callable[[ClientTunnel], None],
        found: Callable[[ClientTunnel], None],
    ) -> None:
        """`leave` is called once, when it takes no more streams; `replace` when another should soon stand for it;
        `found` when its `server` turns out to be one of those behind the address that was dialled.
        """
        super().__init__(services, dialled.result.event, record)
        self._dialled = dialled
        self._bundle = bundle
        self._via = via
        self._address = sockets.peer_name(dialled.wire)
        self._leave = leave
        self._replace = replace
        self._found = found
        self._retired = False
        # Where this very server can be dialled, as far as it said so.
        self._server: Endpoint | None = None
        self.server: Endpoint | None = None  # the same, where it is not the address that was dialled
        self._was_told = False
        self.is_spare = False  # there is another to the same server
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

    @property
    def is_fresh(self) -> bool:
        """Whether it takes streams and will do so for a while."""
        return self.takes_streams and self._age(self.services.loop.time()) < _REPLACED_AT

    def _age(self, now: float) -> float:
        """0.0 when it was made, 1.0 when it takes no more streams."""
        return (now - self.born) / self.services.limits.tunnel_max_age

    @property
    def is_in_use(self) -> bool:
        """Whether it carries something, or did a moment ago."""
        return self._empty_since is None or self.services.loop.time() - self._empty_since < _IN_USE_SECONDS

    def carry(
        self, application: socket.socket, record: ConnectionRecord, port: int, passage: Passage | None = None
    ) -> None:
        """Take over an application's connection, with its record, its passage and its end.

        `port` is the one of the application on the other side.
        """
        connection_id = os.urandom(CONNECTION_ID_SIZE)
        carried = Carried(self, record, connection_id, passage)
        going_to = Endpoint(self._address.host, port) if self._via.by_stream else self._address
        self.tunnel.open(
            Opening(going_to, connection_id),
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
        age = self._age(now)
        if age >= _REPLACED_AT or not self._is_current:
            if self.is_in_use and not self._retired:
                self._replace(self)
            if age >= 1 or not self._is_current:
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
        """Where bulk is to be moved to. An address inside this machine, of a server that is not, is nobody's.

        It is said once: who said another each time would have us dial for ever. Raises TunnelViolation.
        """
        if self._was_told:
            raise TunnelViolation("a second ADDRESS: a server stays where it is")
        self._was_told = True
        told = ipaddress.ip_address(address.host)
        if address.host == self._address.host or not (told.is_loopback or told.is_unspecified or told.is_multicast):
            self._server = address
            if address.host != self._address.host:
                self.server = address
                self._found(self)

    def on_draining(self, tunnel: Tunnel) -> None:
        """The other side is about to end. Behind a Service's address there may be others."""
        if self.is_in_use and self.services.loop.time() - self.born >= _TOO_YOUNG_SECONDS:
            self._replace(self)
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
                self.services, self._via, self._bundle, lambda bundle: bundle.move_client, to=server
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
