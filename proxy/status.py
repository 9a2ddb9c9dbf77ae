"""GET /metrics for Prometheus; /healthz/ready, /healthz/live and the application's probes for the kubelet: ports that
everybody may ask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from proxy.admin.http_request import Request
from proxy.admin.http_server import Answer, Handler, HttpServer, text
from proxy.probes.answering import ProbeAnswers


class StatusServer:
    """Serves on sockets that are bound already. `why_not_ready` says why traffic is not welcome now, in a word or
    two, and "" where it is; live is who answers at all. `probes` answer for the application, on the health port."""

    def __init__(
        self,
        metrics: CollectorRegistry,
        why_not_ready: Callable[[], str],
        at_failure_of: Callable[[asyncio.Task[None]], None],
        probes: ProbeAnswers,
    ) -> None:
        """`at_failure_of` gets each task that must not end, and looks after it."""
        self._metrics = metrics
        self._why_not_ready = why_not_ready
        self._probes = probes
        health = _pages({"/healthz/ready": self._on_ready, "/healthz/live": self._on_live})
        self._servers = (
            HttpServer(_only_get(_pages({"/metrics": self._on_metrics})), at_failure_of),
            HttpServer(_only_get(self._probes_before(health)), at_failure_of),
        )

    def start(self, metrics: Sequence[socket.socket], health: Sequence[socket.socket]) -> None:
        """Answer on these sockets until `close()`."""
        for server, listening in zip(self._servers, (metrics, health), strict=True):
            server.start(listening)

    async def close(self) -> None:
        """Stop answering, and close the sockets."""
        for server in self._servers:
            await server.close()
        await self._probes.close()

    def _probes_before(self, pages: Handler) -> Handler:
        async def handle(request: Request) -> Answer:
            return await (self._probes.answer if self._probes.knows(request.path) else pages)(request)

        return handle

    def _on_metrics(self) -> Answer:
        return Answer(generate_latest(self._metrics), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    def _on_ready(self) -> Answer:
        obstacle = self._why_not_ready()
        return text(obstacle, 503) if obstacle else text("ready")

    def _on_live(self) -> Answer:
        return text("live")


def _pages(pages: dict[str, Callable[[], Answer]]) -> Handler:
    async def handle(request: Request) -> Answer:
        page = pages.get(request.path)
        return text(f"there are: {', '.join(pages)}", 404) if page is None else page()

    return handle


def _only_get(handler: Handler) -> Handler:
    async def handle(request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return Answer(b"GET it\n", 405, headers={"Allow": "GET, HEAD"})
        return await handler(request)

    return handle
