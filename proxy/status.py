"""GET /metrics for Prometheus, /healthz/ready and /healthz/live for the kubelet. Nothing else here imports aiohttp."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from proxy.listener import EXHAUSTED

# Prometheus and the kubelet hold a few. These ports are open to everybody and share descriptors with the data path:
# when there are more, the oldest goes.
MAX_CONNECTIONS: Final = 64
# Longer than the usual scrape interval would only keep idle connections open.
_KEEPALIVE_SECONDS: Final = 15.0
# How long to wait when the process has no descriptor left, before the next try.
_PAUSE_SECONDS: Final = 0.5


class StatusServer:
    """Serves on sockets that are bound already. `why_not_ready` says why traffic is not welcome now, in a word or
    two, and "" where it is; live is who answers at all."""

    def __init__(
        self,
        metrics: CollectorRegistry,
        why_not_ready: Callable[[], str],
        at_failure_of: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """`at_failure_of` gets each task that must not end, and looks after it."""
        self._metrics = metrics
        self._why_not_ready = why_not_ready
        self._at_failure_of = at_failure_of
        self._runners: list[web.AppRunner] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._open: list[asyncio.BaseTransport] = []

    async def start(self, metrics: Sequence[socket.socket], health: Sequence[socket.socket]) -> None:
        """Answer on these sockets until `close()`."""
        await self._serve(metrics, [web.get("/metrics", self._on_metrics)])
        await self._serve(health, [web.get("/healthz/ready", self._on_ready), web.get("/healthz/live", self._on_live)])

    async def close(self) -> None:
        """Stop answering, and close the sockets."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._accepting.clear()
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _serve(self, listening: Sequence[socket.socket], routes: list[web.RouteDef]) -> None:
        if not listening:
            return
        application = web.Application()
        application.add_routes(routes)
        # No access log: a probe each second says nothing. Two seconds are ample for a scrape in flight at the end.
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=2.0,
            keepalive_timeout=_KEEPALIVE_SECONDS,
        )
        self._runners.append(runner)
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("aiohttp's runner has no server after setup()")
        for sock in listening:
            task = asyncio.create_task(self._accept(sock, runner.server))
            self._at_failure_of(task)
            self._accepting.append(task)

    async def _accept(self, listening: socket.socket, server: web.Server) -> None:
        """Accept connections by ourselves, because aiohttp would take any number of them."""
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    accepted, _ = await loop.sock_accept(listening)
                except OSError as error:
                    # Neither a connection that died in the queue (the next is not concerned) nor having no descriptor
                    # left may end this task.
                    if error.errno in EXHAUSTED:
                        await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                try:
                    transport, _ = await loop.connect_accepted_socket(server, accepted)
                except OSError:  # it was reset meanwhile
                    accepted.close()
                    continue
                self._open = [one for one in self._open if not one.is_closing()]
                self._open.append(transport)
                if len(self._open) > MAX_CONNECTIONS:
                    self._open.pop(0).close()

    async def _on_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _on_ready(self, _request: web.Request) -> web.Response:
        obstacle = self._why_not_ready()
        return web.Response(status=503, text=f"{obstacle}\n") if obstacle else web.Response(text="ready\n")

    async def _on_live(self, _request: web.Request) -> web.Response:
        return web.Response(text="live\n")
