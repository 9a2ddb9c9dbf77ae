"""Health and metrics over HTTP, and that strangers cannot make them grow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web

from control.discovery import status
from control.discovery.metrics import Metrics
from control.discovery.status import health_application, metrics_application, serving
from tests.kube.rig import run


@contextlib.asynccontextmanager
async def served(application: web.Application) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        async with serving(application, [sock]):
            yield port


async def get(port: int, path: str) -> tuple[int, str]:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


def test_ready_is_who_has_no_obstacle_and_live_who_answers() -> None:
    obstacle = "waiting for pods"

    async def main() -> None:
        nonlocal obstacle
        async with served(health_application(lambda: obstacle)) as port:
            assert await get(port, "/healthz/ready") == (503, "waiting for pods\n")
            assert await get(port, "/healthz/live") == (200, "live\n")
            obstacle = ""
            assert await get(port, "/healthz/ready") == (200, "ready\n")
            assert (await get(port, "/metrics"))[0] == 404

    run(main())


def test_metrics_are_refreshed_when_they_are_asked_for() -> None:
    metrics = Metrics()

    async def main() -> None:
        async with served(metrics_application(metrics.registry, lambda: metrics.leader.set(1))) as port:
            code, text = await get(port, "/metrics")
            assert code == 200
            assert "qbitel_discovery_leader 1.0" in text

    run(main())


def test_silent_connections_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "MAX_CONNECTIONS", 4)

    async def main() -> None:
        async with served(health_application(lambda: "")) as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
            assert await get(port, "/healthz/ready") == (200, "ready\n")
            for reader, _ in silent[:8]:
                assert await reader.read() == b""  # the oldest were closed
            for _, writer in silent:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    run(main())
