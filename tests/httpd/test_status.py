"""Health and metrics over HTTP, and that strangers cannot make them grow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry, Gauge

from httpd import status
from httpd.status import PlainErrors, health_application, metrics_application, serving
from tests.httpd.rig import run


@contextlib.asynccontextmanager
async def served(application: web.Application) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        async with serving(application, [sock]):
            yield port


async def get(port: int, path: str) -> tuple[int, str, str]:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


def test_ready_is_who_has_no_obstacle_and_live_who_answers() -> None:
    obstacle = "waiting for pods"

    async def main() -> None:
        nonlocal obstacle
        plain = "text/plain; charset=utf-8"
        async with served(health_application(lambda: obstacle)) as port:
            assert await get(port, "/healthz/ready") == (503, plain, "waiting for pods\n")
            assert await get(port, "/healthz/live") == (200, plain, "live\n")
            obstacle = ""
            assert await get(port, "/healthz/ready") == (200, plain, "ready\n")
            assert (await get(port, "/metrics"))[0] == 404

    run(main())


def test_metrics_are_prometheus_text_and_as_of_now() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("things", "Things.", registry=registry)

    async def main() -> None:
        async with served(metrics_application(registry, gauge.inc)) as port:
            for count in ("1.0", "2.0"):
                code, kind, text = await get(port, "/metrics")
                assert code == 200
                assert kind.startswith("text/plain; version=0.0.4")
                assert f"things {count}" in text
            assert (await get(port, "/healthz/live"))[0] == 404

    run(main())


def test_silent_connections_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "MAX_CONNECTIONS", 4)

    async def main() -> None:
        async with served(health_application(lambda: "")) as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
            assert (await get(port, "/healthz/ready"))[0] == 200
            for reader, _ in silent[:8]:
                assert await reader.read() == b""  # the oldest were closed
            for _, writer in silent:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    run(main())


def test_what_is_no_http_gets_a_line_for_a_person() -> None:
    async def main() -> None:
        async with served(health_application(lambda: "")) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"<script>\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert b" 400 " in answer.splitlines()[0]
            assert answer.endswith(b"this is no HTTP/1.1 request that can be read\n")

    run(main())
    assert PlainErrors().failed().status == 500


def test_the_ports_are_given_back_at_the_end() -> None:
    async def main() -> None:
        async with served(health_application(lambda: "")) as port:
            pass
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(main())
