"""GET /metrics for Prometheus, /healthz/ready and /healthz/live for the kubelet."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4


def metrics_application(registry: CollectorRegistry, refresh: Callable[[], None]) -> web.Application:
    """Answers GET /metrics; `refresh` sets what is known only when it is asked for."""

    async def on_metrics(_request: web.Request) -> web.Response:
        refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    application = web.Application()
    application.add_routes([web.get("/metrics", on_metrics)])
    return application


def health_application(ready: Callable[[], bool]) -> web.Application:
    """Answers the kubelet: `ready` says whether requests are welcome; live is who answers at all."""

    async def on_ready(_request: web.Request) -> web.Response:
        return web.Response(text="ready\n") if ready() else web.Response(status=503, text="draining\n")

    async def on_live(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    application = web.Application()
    application.add_routes([web.get("/healthz/ready", on_ready), web.get("/healthz/live", on_live)])
    return application
