"""The answers of a sidecar about itself."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from proxy import sockets
from proxy.config import Endpoint
from proxy.probes.answering import ProbeAnswers
from proxy.status import StatusServer

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
            server = StatusServer(registry, lambda: "" if ready else "draining", nothing_fails, ProbeAnswers({}))
            server.start([ports["m"]], [ports["h"]])
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


def test_nothing_but_reading_is_allowed(run):
    async def main():
        listening = sockets.listen(HERE)
        port = listening.getsockname()[1]
        server = StatusServer(CollectorRegistry(), lambda: "", nothing_fails, ProbeAnswers({}))
        server.start([listening], [])

        def post():
            request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", method="POST")
            with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=10):  # noqa: S310
                pass
            with refused.value:
                return refused.value.code, refused.value.headers["Allow"]

        try:
            return await asyncio.to_thread(post)
        finally:
            await server.close()

    assert run(main()) == (405, "GET, HEAD")
