"""What an authority answers about itself."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, Gauge

from certmgr.status import health_application, metrics_application


def answers(application, *paths):
    async def main():
        async with TestClient(TestServer(application)) as client:
            found = []
            for path in paths:
                async with client.get(path) as answer:
                    found.append((answer.status, answer.headers["Content-Type"], await answer.text()))
            return found

    return asyncio.run(main())


def test_metrics_are_prometheus_text_and_as_of_now():
    registry = CollectorRegistry()
    gauge = Gauge("things", "Things.", registry=registry)
    first, second, _ = answers(metrics_application(registry, gauge.inc), "/metrics", "/metrics", "/")
    assert first[0] == 200
    assert first[1].startswith("text/plain; version=0.0.4")
    assert "things 1.0" in first[2]
    assert "things 2.0" in second[2]


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_health_follows_readiness_and_life_does_not(ready, status):
    paths = ("/healthz/ready", "/healthz/live", "/metrics")
    assert [found[0] for found in answers(health_application(lambda: ready), *paths)] == [status, 200, 404]
