"""GET /metrics for Prometheus, /healthz/ready and /healthz/live for the kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

# The kubelet and Prometheus hold a few. Beyond that the connection that is open for longest is closed: whoever opens
# many and says nothing keeps nobody out, and takes no more descriptors than these.
MAX_CONNECTIONS: Final = 64
# A scrape or probe that is under way at the end, in seconds.
_DRAIN_SECONDS: Final = 2.0
_BACKLOG: Final = 128


@contextlib.asynccontextmanager
async def serving(application: web.Application, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Answer on `sockets`, which listen already."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_DRAIN_SECONDS)
    await runner.setup()
    try:
        for sock in sockets:
            await _Site(runner, sock).start()
        yield
    finally:
        await runner.cleanup()


def metrics_application(registry: CollectorRegistry, refresh: Callable[[], None]) -> web.Application:
    """Answers GET /metrics; `refresh` sets what is known only when it is asked for."""

    async def on_metrics(_request: web.Request) -> web.Response:
        refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    application = web.Application()
    application.add_routes([web.get("/metrics", on_metrics)])
    return application


def health_application(obstacle: Callable[[], str]) -> web.Application:
    """Answers the kubelet: ready is who has no `obstacle`; live is who answers at all."""

    async def on_ready(_request: web.Request) -> web.Response:
        reason = obstacle()
        return web.Response(status=503, text=f"{reason}\n") if reason else web.Response(text="ready\n")

    async def on_live(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    application = web.Application()
    application.add_routes([web.get("/healthz/ready", on_ready), web.get("/healthz/live", on_live)])
    return application


class _Site(web.BaseSite):
    """Connections of one socket, with a bound."""

    def __init__(self, runner: web.AppRunner, sock: socket.socket) -> None:
        super().__init__(runner)
        self._sock = sock
        self._open: dict[_Connection, None] = {}

    @property
    def name(self) -> str:
        """HOST:PORT."""
        host, port = self._sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        """Accept connections until stop(), which closes the socket."""
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, sock=self._sock, backlog=_BACKLOG)

    def _connection(self) -> _Connection:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner was not set up, or is cleaned up already")
        return _Connection(server, self._open)


class _Connection(web.RequestHandler):
    """Counted among those that are open."""

    __slots__ = ("_open",)

    def __init__(self, server: web.Server, others: dict[_Connection, None]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]  # documented
        self._open = others

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, perhaps the oldest one's."""
        super().connection_made(transport)
        self._open[self] = None
        if len(self._open) > MAX_CONNECTIONS:
            next(iter(self._open)).force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give it back."""
        self._open.pop(self, None)
        super().connection_lost(exc)
