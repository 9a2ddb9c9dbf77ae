"""A server and clients of it, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiotls
from pqtls import ClientConfig, ServerConfig
from tests.support import pki


class Recorder(asyncio.Protocol):
    """Writes down what happens to it. `half_open` is what eof_received answers."""

    def __init__(self, *, half_open: bool = False) -> None:
        self.half_open = half_open
        self.transport: aiotls.TlsTransport | None = None
        self.data = bytearray()
        self.eof = asyncio.Event()
        self.got = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.pauses = 0
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.got.set()

    def eof_received(self) -> bool:
        self.eof.set()
        return self.half_open

    def pause_writing(self) -> None:
        self.pauses += 1
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.lost.done(), "connection_lost was called twice"
        self.writable.set()
        self.lost.set_result(exc)

    async def received(self, size: int) -> None:
        while len(self.data) < size:
            self.got.clear()
            await self.got.wait()


class Rig:
    """A server of Recorders on a port of its own, and what failed before it had a protocol."""

    def __init__(self) -> None:
        self.server: Any = None
        self.config = pki.server_config()
        self.accepted: asyncio.Queue[Recorder] = asyncio.Queue()
        self.failures: asyncio.Queue[OSError] = asyncio.Queue()
        self.half_open = False

    @property
    def port(self) -> int:
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    def make_protocol(self) -> Recorder:
        recorder = Recorder(half_open=self.half_open)
        self.accepted.put_nowait(recorder)
        return recorder

    async def client(self, config: ClientConfig | None = None, **options: Any) -> tuple[aiotls.TlsTransport, Recorder]:
        half_open = self.half_open
        return await aiotls.create_connection(
            lambda: Recorder(half_open=half_open), "127.0.0.1", self.port, config or pki.client_config(), **options
        )

    async def pair(self, **options: Any) -> tuple[Recorder, Recorder]:
        """A client's and a server's recorder, connected."""
        _, client = await self.client(**options)
        return client, await self.accepted.get()

    def raw(self) -> socket.socket:
        """A TCP connection to the server that has said nothing yet."""
        return socket.create_connection(("127.0.0.1", self.port))


@contextlib.asynccontextmanager
async def rig(*, half_open: bool = False, config: ServerConfig | None = None, **options: Any) -> AsyncIterator[Rig]:
    """Serve until the end of the block, which must leave no connection behind that does not close by itself."""
    made = Rig()
    made.half_open = half_open
    made.config = config or made.config
    made.server = await aiotls.create_server(
        made.make_protocol,
        "127.0.0.1",
        0,
        lambda: made.config,
        on_handshake_failure=lambda error, _address: made.failures.put_nowait(error),
        **options,
    )
    try:
        yield made
    finally:
        made.server.close()
        made.server.abort_clients()
        await made.server.wait_closed()


def reset(sock: socket.socket) -> None:
    """Close by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
