"""The answers of a sidecar about itself."""

from __future__ import annotations

import asyncio
import errno
import os
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from proxy import sockets
from proxy.config import Endpoint
from proxy.status import MAX_CONNECTIONS, StatusServer

HERE = Endpoint("127.0.0.1", 0)


def nothing_fails(task: asyncio.Task[None]) -> None:
    """In place of the process that ends with a task that raises: the test fails with it."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.result())


def ask(port: int, path: str):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.fixture
def answers(run):
    """The answers to paths of the metrics (m) or health (h) port of a server that is ready or not."""

    def go(*questions: tuple[str, str], ready: bool = True):
        registry = CollectorRegistry()
        Counter("things", "Things.", registry=registry).inc(3)

        async def main():
            ports = {"m": sockets.listen(HERE), "h": sockets.listen(HERE)}
            numbers = {key: sock.getsockname()[1] for key, sock in ports.items()}
            server = StatusServer(registry, lambda: "" if ready else "draining", nothing_fails)
            await server.start([ports["m"]], [ports["h"]])
            try:
                return [await asyncio.to_thread(ask, numbers[where], path) for where, path in questions]
            finally:
                await server.close()

        return run(main())

    return go


def test_metrics_are_prometheus_text(answers):
    ((status, kind, text),) = answers(("m", "/metrics"))
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    assert "things_total 3.0" in text


def test_health_follows_readiness_and_life_does_not(answers):
    assert [status for status, _, _ in answers(("h", "/healthz/ready"), ("h", "/healthz/live"))] == [200, 200]
    not_ready = answers(("h", "/healthz/ready"), ("h", "/healthz/live"), ready=False)
    assert [status for status, _, _ in not_ready] == [503, 200]


def test_each_port_answers_its_own_paths_only(answers):
    assert [status for status, _, _ in answers(("m", "/healthz/live"), ("h", "/metrics"), ("m", "/"))] == [404] * 3


def test_any_number_of_silent_connections_leaves_room_for_a_scrape(run):
    async def main():
        listening = sockets.listen(HERE)
        address = listening.getsockname()
        server = StatusServer(CollectorRegistry(), lambda: True, nothing_fails)
        await server.start([listening], [])
        silent = [await asyncio.open_connection(*address) for _ in range(3 * MAX_CONNECTIONS)]
        try:
            status, _, _ = await asyncio.to_thread(ask, address[1], "/metrics")
            async with asyncio.timeout(10):
                ended = [await reader.read(1) for reader, _ in silent[: 2 * MAX_CONNECTIONS]]
        finally:
            for _, writer in silent:
                writer.close()
            await server.close()
        return status, set(ended)

    assert run(main()) == (200, {b""})


def test_a_connection_that_died_in_the_queue_does_not_hold_up_the_next(run, monkeypatch):
    async def main():
        listening = sockets.listen(HERE)
        address = listening.getsockname()
        loop = asyncio.get_running_loop()
        failures = iter([errno.ECONNABORTED] * 20)
        accept = loop.sock_accept

        class Loop:
            """The running loop, whose first connections die in the queue."""

            def __getattr__(self, name):
                return getattr(loop, name)

            async def sock_accept(self, sock):
                if (number := next(failures, None)) is not None:
                    raise OSError(number, os.strerror(number))
                return await accept(sock)

        server = StatusServer(CollectorRegistry(), lambda: True, nothing_fails)
        with monkeypatch.context() as patch:
            patch.setattr("proxy.status.asyncio.get_running_loop", Loop)
            await server.start([listening], [])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        began = loop.time()
        status, _, _ = await asyncio.to_thread(ask, address[1], "/metrics")
        await server.close()
        assert next(failures, None) is None
        return status, loop.time() - began

    status, seconds = run(main())
    assert status == 200
    assert seconds < 3
