"""GET /metrics for Prometheus, /healthz/ready and /healthz/live for the kubelet."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from httpd.connection import Limits, Terms
from httpd.connection_table import ConnectionTable
from httpd.site import Site

# The kubelet and Prometheus hold a few. Beyond that the one goes that was silent for the longest: whoever opens many
# and says nothing keeps nobody out, and takes no more descriptors than these.
MAX_CONNECTIONS: Final = 64
# Prometheus comes back every minute unless it is told otherwise, by the connection that it has; twice that, and more.
LIMITS: Final = Limits(idle_seconds=150.0)
# A scrape or probe that is under way at the end, in seconds.
_DRAIN_SECONDS: Final = 2.0


@contextlib.asynccontextmanager
async def serving(application: web.Application, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Answer on `sockets`, which listen already."""
    table = ConnectionTable(MAX_CONNECTIONS)
    terms = Terms(LIMITS, PlainErrors(), lambda _transport: table)
    runner = web.AppRunner(application, shutdown_timeout=_DRAIN_SECONDS)
    await runner.setup()
    try:
        for sock in sockets:
            await Site(runner, sock, terms).start()
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
    """Answers the kubelet: ready is who has no `obstacle`, a word or a sentence; live is who answers at all."""

    async def on_ready(_request: web.Request) -> web.Response:
        reason = obstacle()
        return web.Response(status=503, text=f"{reason}\n") if reason else web.Response(text="ready\n")

    async def on_live(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    application = web.Application()
    application.add_routes([web.get("/healthz/ready", on_ready), web.get("/healthz/live", on_live)])
    return application


class PlainErrors:
    """A line for a person; nobody counts them."""

    def malformed(self, source: str) -> web.Response:
        """To what is no HTTP."""
        return web.Response(status=400, text="this is no HTTP/1.1 request that can be read\n")

    def failed(self) -> web.Response:
        """Where a fault of ours failed a request behind its handler."""
        return web.Response(status=500, text="this is a bug; the log says where\n")
