"""`qbitel injector serve` as a whole: the webhook over HTTPS and its metrics, until it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from injector.connections import MAX_CONNECTIONS, Connections, Site
from injector.inject import Injector
from injector.metrics import CONTENT_TYPE, Metrics
from injector.serving_certificate import ServingCertificate
from injector.webhook import Webhook

# Reviews under way at the very end; the API server gives up after five seconds (webhook_configuration).
_LAST_SECONDS: Final = 5.0
# Prometheus holds one or two.
_MAX_METRICS_CONNECTIONS: Final = 64
# Descriptors besides those of the webhook's connections: handshakes under way, metrics, listeners.
_SPARE_DESCRIPTORS: Final = 1280

_log = logging.getLogger("qbitel.injector")

Clock = Callable[[], datetime.datetime]


@dataclass(frozen=True, slots=True)
class Listening:
    """Sockets that listen already."""

    webhook: Sequence[socket.socket]
    metrics: Sequence[socket.socket] = ()

    def close(self) -> None:
        """Give the ports back. Idempotent."""
        for sock in (*self.webhook, *self.metrics):
            sock.close()


async def run(
    injector: Injector,
    certificate: ServingCertificate,
    listening: Listening,
    *,
    now: Clock,
    drain_seconds: float,
) -> int:
    """Serve until SIGTERM or SIGINT, go on for `drain_seconds` or until a second signal; return the exit code."""
    asked, at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        (at_once if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    metrics = Metrics()
    webhook = Webhook(injector, metrics)
    table = Connections(_room_for(MAX_CONNECTIONS))
    async with contextlib.AsyncExitStack() as undo:
        await _serve_metrics(undo, listening.metrics, metrics, table, lambda: (certificate.end, now()))
        await _serve_webhook(undo, listening.webhook, webhook, table, certificate)
        following = asyncio.create_task(certificate.follow())
        undo.callback(following.cancel)
        await asked.wait()
        # The API server learns that we go by our readiness, and until then comes to us and to nobody else. What is
        # answered meanwhile says that its connection ends.
        webhook.is_draining = True
        _log.info("draining: reviews are answered for %g s more", drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await at_once.wait()
    return 0


async def _serve_webhook(
    undo: contextlib.AsyncExitStack,
    sockets: Sequence[socket.socket],
    webhook: Webhook,
    table: Connections,
    certificate: ServingCertificate,
) -> None:
    runner = web.AppRunner(webhook.application(), shutdown_timeout=_LAST_SECONDS)
    await runner.setup()
    undo.push_async_callback(runner.cleanup)
    for sock in sockets:
        await Site(runner, sock, table, webhook.note, certificate.context).start()
        _log.info("the webhook is on port %d", sock.getsockname()[1])


async def _serve_metrics(
    undo: contextlib.AsyncExitStack,
    sockets: Sequence[socket.socket],
    metrics: Metrics,
    table: Connections,
    times: Callable[[], tuple[datetime.datetime, datetime.datetime]],
) -> None:
    async def on_metrics(_request: web.Request) -> web.Response:
        body = metrics.exposition(*times(), connections=len(table), evicted=table.evicted)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.add_routes([web.get("/metrics", on_metrics)])
    runner = web.AppRunner(application, shutdown_timeout=_LAST_SECONDS)
    await runner.setup()
    undo.push_async_callback(runner.cleanup)
    own_table = Connections(_MAX_METRICS_CONNECTIONS)
    for sock in sockets:
        await Site(runner, sock, own_table, lambda _answer: None).start()
        _log.info("metrics on port %d", sock.getsockname()[1])


def _room_for(connections: int) -> int:
    """Raise the limit of open files to what so many need; return how many it has room for."""
    wanted = connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    possible = wanted if hard == resource.RLIM_INFINITY else max(soft, min(hard, wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible >= wanted:
        return connections
    room = max(possible - _SPARE_DESCRIPTORS, possible // 2)
    _log.warning("the limit of open files is %d: room for %d connections (ulimit -Hn raises it)", possible, room)
    return room
