"""Two tunnels joined by TLS over TCP, in one loop: applications on one side, servers on the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from proxy import sockets
from proxy.config import Endpoint
from proxy.engine import Scratch
from proxy.reactor import Reactor
from proxy.relay import End, Outcome, Relay
from proxy.tunnels.buffers import TunnelBuffers
from proxy.tunnels.frames import Opening, ResetCode
from proxy.tunnels.stream import Stream
from proxy.tunnels.tunnel import Tunnel

MB = 1 << 20


class StreamOwner:
    """Tells its side."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def on_end(self, outcome: Outcome) -> None:
        self.side.outcomes.append(outcome)
        self.side.changed.set()

    def on_connected(self) -> None:
        self.side.connected += 1
        self.side.changed.set()

    def on_bulk(self, stream: Stream) -> None:
        self.side.bulk.append(stream)
        self.side.changed.set()

    def on_moved(self, relay: Relay) -> None:
        self.side.moved.append(relay)


class Side:
    """One sidecar's end: the owner of its tunnel, and what it was told."""

    def __init__(self, reactor: Reactor, refuse: ResetCode | None = None) -> None:
        self.reactor = reactor
        self.refuse = refuse
        self.openings: list[Opening] = []
        self.outcomes: list[Outcome] = []
        self.bulk: list[Stream] = []
        self.moved: list[Relay] = []
        self.addresses: list[Endpoint] = []
        self.connected = 0
        self.drains = 0
        self.empty = 0
        self.ended: tuple | None = None
        self.changed = asyncio.Event()
        self.target: Endpoint | None = None
        self.tunnel: Tunnel

    def stream(self, number: int, sock: socket.socket, *, connecting: bool = False) -> Stream:
        return Stream(self.reactor, self.tunnel, number, sock, StreamOwner(self), connecting=connecting)

    def on_open(self, tunnel, stream_id, opening):
        self.openings.append(opening)
        if self.refuse is not None:
            return self.refuse
        tunnel.adopt(self.stream(stream_id, sockets.start_connecting(self.target, None), connecting=True))
        return None

    def on_address(self, address):
        self.addresses.append(address)
        self.changed.set()

    def on_session(self, session):
        pass

    def on_draining(self, tunnel):
        self.drains += 1
        self.changed.set()

    def on_empty(self, tunnel):
        self.empty += 1
        self.changed.set()

    def on_end(self, tunnel, end, error):
        self.ended = (end, error)
        self.changed.set()

    async def until(self, condition) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


class Joined:
    """app ── client tunnel ══ TLS ══ server tunnel ── server; `open()` gives the two ends of a new connection."""

    def __init__(self, tcp_pair, engines, *, buffer: int | None = None, refuse: ResetCode | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.tcp_pair = tcp_pair
        self.reactor = Reactor(self.loop)
        buffers = TunnelBuffers(Scratch())
        self.wires = tcp_pair(buffer=buffer)
        self.client, self.server = Side(self.reactor), Side(self.reactor, refuse)
        self.listener = socket.socket()
        if buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(512)
        self.listener.setblocking(False)
        self.server.target = Endpoint(*self.listener.getsockname())
        for side, wire, engine in zip((self.client, self.server), self.wires, engines, strict=True):
            wire.setblocking(False)
            side.tunnel = Tunnel(self.reactor, buffers, wire, engine, side, is_client=side is self.client)
        self.client.tunnel.start()
        self.server.tunnel.start()
        self.stack = contextlib.ExitStack()

    def dial(self, *, buffer: int | None = None) -> socket.socket:
        """A new application's connection into the tunnel; its own end."""
        app, near = self.tcp_pair(buffer=buffer)
        opening = Opening(Endpoint("10.0.0.1", 80), os.urandom(16))
        self.client.tunnel.open(opening, lambda number: self.client.stream(number, near))
        return app

    async def open(self, *, buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
        app = self.dial(buffer=buffer)
        server, _ = await self.loop.sock_accept(self.listener)
        self.stack.callback(server.close)
        return app, server

    async def read_all(self, sock: socket.socket) -> bytes:
        data = bytearray()
        while piece := await self.loop.sock_recv(sock, MB):
            data += piece
        return bytes(data)

    def close(self) -> None:
        for side in (self.client, self.server):
            side.tunnel.abort(End.DRAINED)
        assert len(self.reactor) == 0, "something that has ended left a descriptor behind"
        self.reactor.close()
        self.listener.close()
        self.stack.close()
