"""The outbound side of a sidecar, and servers of each kind beside it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from typing import Final

from prometheus_client import CollectorRegistry

from mesh.names import ALPN_STREAM
from pqtls import ServerConnection
from pqtls.errors import PeerError
from proxy.config import Direction, Endpoint, Limits
from proxy.peers.entries import Balancing, PeerEndpoint, PeerEntry, Retrying
from proxy.peers.metrics import PeerMetrics
from proxy.peers.passage import Passage
from proxy.peers.reaching import reach
from proxy.peers.router import Router
from proxy.peers.table import network_of
from proxy.record import ConnectionRecord
from proxy.routes import Mode
from proxy.tunnels.moving import Dialled
from tests.proxy.peers.groups import Clock
from tests.proxy.tunnels.services import services_of

# A record with a fatal alert (RFC 8446 §5.1, §6): type 21, version, length 2; fatal, protocol_version.
PROTOCOL_VERSION_ALERT: Final = bytes((21, 3, 3, 0, 2, 2, 70))


class World:
    """The outbound side of a sidecar, and servers beside it."""

    def __init__(self, pki) -> None:
        self.pki = pki
        self.loop = asyncio.get_running_loop()
        self.services = services_of(pki.bundle("web"), limits=Limits(connect_timeout=5, handshake_timeout=5))
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.stack = contextlib.AsyncExitStack()
        self.router = Router((), PeerMetrics(self.registry), now=self.clock, random=lambda: 0.0)
        self.accepted: list[bytes] = []
        self._handlers: dict[asyncio.Task, asyncio.StreamWriter] = {}

    def entry(self, mode=Mode.REQUIRE, *endpoints: Endpoint, **more) -> None:
        """The document has one entry, for 127.0.0.0/8."""
        if endpoints:
            more = {"balancing": Balancing.ROUND_ROBIN, "retrying": Retrying(), **more}
        self.router.take_up([
            PeerEntry(
                name="here", mode=mode, networks=(network_of("127.0.0.0/8"),),
                endpoints=tuple(PeerEndpoint(one.host, one.port) for one in endpoints), **more,
            )
        ])  # fmt: skip

    async def serve(self, behave) -> Endpoint:
        """A server that does `behave(reader, writer)` with each connection."""

        async def handle(reader, writer):
            self._handlers[asyncio.current_task()] = writer
            with contextlib.suppress(OSError):
                await behave(reader, writer)
            writer.close()

        server = await self.stack.enter_async_context(await asyncio.start_server(handle, "127.0.0.1", 0))
        self.stack.callback(server.close)
        return Endpoint(*server.sockets[0].getsockname())

    async def plain(self) -> Endpoint:
        """Says at once that it speaks no TLS."""

        async def behave(reader, writer):
            self.accepted.append(await reader.read(65536))
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()

        return await self.serve(behave)

    async def alerting(self) -> Endpoint:
        """A TLS server that knows nothing of ours."""

        async def behave(reader, writer):
            self.accepted.append(await reader.read(65536))
            writer.write(PROTOCOL_VERSION_ALERT)
            await writer.drain()

        return await self.serve(behave)

    async def resetting(self) -> Endpoint:
        async def behave(reader, writer):
            self.accepted.append(await reader.read(65536))
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))

        return await self.serve(behave)

    async def closing(self) -> Endpoint:
        async def behave(reader, _writer):
            self.accepted.append(await reader.read(65536))

        return await self.serve(behave)

    async def mesh(self, certs: str = "api", *, tunnels: bool = True) -> Endpoint:
        """A sidecar, as far as its handshake."""
        config = self.pki.bundle(certs).server(True)
        if not tunnels:
            config = dataclasses.replace(config, alpn=(ALPN_STREAM,))

        async def behave(reader, writer):
            engine = ServerConnection(config)
            while data := await reader.read(65536):
                try:
                    engine.receive_data(data)
                except PeerError:
                    break
                finally:
                    writer.write(engine.data_to_send())
            await writer.drain()

        return await self.serve(behave)

    def nobody(self) -> Endpoint:
        """Where nobody listens: a port that is bound, so that nobody else gets it."""
        sock = self.stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        return Endpoint(*sock.getsockname())

    async def go(self, destination: Endpoint):
        """(what was found, where): closed again, however it is."""
        way = self.router.way(destination)
        record = ConnectionRecord(self.services.sinks, Direction.OUTBOUND, Endpoint("127.0.0.1", 1), "-", "qbitel")
        passage = None if way.group is None else Passage(way.group)
        if way.group is not None:
            way.group.begin_connecting()
        try:
            found, address = await reach(self.services, self.router, way, passage, record)
        finally:
            if passage is not None:
                passage.leave()
                way.group.end_connecting()
        if isinstance(found, Dialled):
            found.wire.close()
        elif isinstance(found, socket.socket):
            found.close()
        return type(found), address

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, {"peer": "here", **labels}) or 0

    async def close(self) -> None:
        for live in tuple(self.services.registry._live):
            live.end()
        for writer in self._handlers.values():
            writer.transport.abort()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self.stack.aclose()
        self.services.reactor.close()
