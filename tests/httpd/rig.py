"""A site on this machine, and bytes for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from httpd.connection import Limits, Terms, connection_of
from httpd.connection_table import ConnectionTable
from httpd.site import Site
from tests.support.running import PATIENCE, run, until

__all__ = ["PATIENCE", "run", "until"]

# None of these is ever reached in a test that is not about it.
PATIENT: Final[dict[str, Any]] = {"idle_seconds": PATIENCE, "write_seconds": PATIENCE}
ASK: Final = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


class Errors:
    """Counts what it answers."""

    def __init__(self) -> None:
        self.malformed_from: list[str] = []
        self.failures = 0

    def malformed(self, source: str) -> web.Response:
        self.malformed_from.append(source)
        return web.Response(status=400, text="no HTTP")

    def failed(self) -> web.Response:
        self.failures += 1
        return web.Response(status=500, text="a bug")


@dataclass
class Served:
    """A site that listens, and what it keeps of its connections."""

    port: int
    site: Site
    table: ConnectionTable
    errors: Errors
    lost: list[str] = field(default_factory=list)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def open(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that says whatever the test writes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        self._writers.append(writer)
        return reader, writer

    async def ask(self, sent: bytes) -> bytes:
        """What comes back until the server closes."""
        reader, writer = await self.open()
        writer.write(sent)
        return await reader.read()

    async def close(self) -> None:
        """Every connection that a test opened."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


@contextlib.asynccontextmanager
async def served(*, most: int = 100, context: ssl.SSLContext | None = None, **limits: Any) -> AsyncIterator[Served]:
    """GET /hello, /bug, /reset, /large, /waiting until the end of the block."""
    table, errors = ConnectionTable(most), Errors()
    terms = Terms(Limits(**{**PATIENT, **limits}), errors, lambda _transport: table)

    async def on_hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def on_bug(_request: web.Request) -> web.Response:
        raise ZeroDivisionError("a secret")

    async def on_reset(_request: web.Request) -> web.Response:
        raise ConnectionResetError("the client is gone")

    async def on_large(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(1 << 20))

    async def on_waiting(request: web.Request) -> web.Response:
        connection = connection_of(request)
        gone = asyncio.Event()
        connection.on_lost = gone.set
        await gone.wait()
        made.lost.append(connection.source)
        return web.Response()

    @web.middleware
    async def begin(request: web.Request, handler: Any) -> web.StreamResponse:
        connection_of(request).has_begun()
        answer: web.StreamResponse = await handler(request)
        return answer

    application = web.Application(middlewares=[begin])
    for path, handler in (
        ("/hello", on_hello),
        ("/bug", on_bug),
        ("/reset", on_reset),
        ("/large", on_large),
        ("/waiting", on_waiting),
    ):
        application.router.add_get(path, handler)
    runner = web.AppRunner(application, shutdown_timeout=PATIENCE)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    site = Site(runner, sock, terms, context)
    await site.start()
    made = Served(sock.getsockname()[1], site, table, errors)
    try:
        yield made
    finally:
        await made.close()
        await runner.cleanup()
