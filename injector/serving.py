"""`qbitel injector serve` as a whole: the webhook over HTTPS and its metrics, until it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from httpd.connection_table import ConnectionTable
from httpd.descriptors import room_for
from httpd.site import Site
from httpd.status import metrics_application, serving
from httpd.stop import Stop
from injector.connections import MAX_CONNECTIONS, terms_of
from injector.inject import Injector
from injector.metrics import Metrics
from injector.serving_certificate import ServingCertificate
from injector.webhook import Webhook

# Reviews under way at the very end; the API server gives up after five seconds (webhook_configuration).
_LAST_SECONDS: Final = 5.0

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
    stop = Stop()
    stop.on(signal.SIGTERM, signal.SIGINT)
    metrics = Metrics()
    webhook = Webhook(injector, metrics)
    table = ConnectionTable(room_for(MAX_CONNECTIONS))

    def refresh() -> None:
        metrics.show(certificate.end, now(), connections=len(table), evicted=table.evicted)

    async with contextlib.AsyncExitStack() as undo:
        await undo.enter_async_context(serving(metrics_application(metrics.registry, refresh), listening.metrics))
        for sock in listening.metrics:
            _log.info("metrics on port %d", sock.getsockname()[1])
        await _serve_webhook(undo, listening.webhook, webhook, table, certificate)
        following = asyncio.create_task(certificate.follow())
        undo.callback(following.cancel)
        await stop.asked.wait()
        # The API server learns that we go by our readiness, and until then comes to us and to nobody else. What is
        # answered meanwhile says that its connection ends.
        webhook.is_draining = True
        _log.info("draining: reviews are answered for %g s more", drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await stop.now.wait()
    return 0


async def _serve_webhook(
    undo: contextlib.AsyncExitStack,
    sockets: Sequence[socket.socket],
    webhook: Webhook,
    table: ConnectionTable,
    certificate: ServingCertificate,
) -> None:
    runner = web.AppRunner(webhook.application(), shutdown_timeout=_LAST_SECONDS)
    await runner.setup()
    undo.push_async_callback(runner.cleanup)
    terms = terms_of(table, webhook.note)
    for sock in sockets:
        await Site(runner, sock, terms, certificate.context).start()
        _log.info("the webhook is on port %d", sock.getsockname()[1])
