"""What is said of readiness, over all workers."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pqtls import PROFILES
from proxy import binding
from proxy.config import Direction, Endpoint, ListenerConfig, ProxyConfig
from proxy.life import Stop
from proxy.readiness import DRAINING, STARTING, Readiness


@pytest.fixture
def bound(pki):
    listener = ListenerConfig(direction=Direction.INBOUND, bind=Endpoint("127.0.0.1", 0), target=Endpoint("a", 9))
    config = ProxyConfig(
        files=pki.files("web"), listeners=(listener,), profiles=(PROFILES["qbitel"],), workers=2,
        admin=(Endpoint("::1", 0),),
    )  # fmt: skip
    made = binding.build(config)
    yield made
    made.close()


def test_every_address_is_said_before_anything_else(bound, caplog):
    caplog.set_level(logging.INFO)
    Readiness(bound).announce()
    port = bound.listeners[0][0].getsockname()[1]
    assert caplog.messages == [
        f"inbound on 127.0.0.1:{port} to a:9",
        f"admin on [::1]:{bound.admin[0].getsockname()[1]}",
    ]


def test_it_is_ready_when_all_workers_are_and_says_whose_obstacle_it_is_not(bound, caplog):
    caplog.set_level(logging.INFO)

    async def main():
        readiness, stop = Readiness(bound), Stop(asyncio.get_running_loop())
        seen = [readiness.obstacle(stop)]
        for worker, obstacle in ((0, ""), (1, "no policies"), (1, ""), (0, "no valid certificate"), (0, "")):
            readiness.changed(worker, obstacle)
            seen.append(readiness.obstacle(stop))
        stop.drain()
        readiness.changed(0, DRAINING)
        return [*seen, readiness.obstacle(stop)]

    assert asyncio.run(main()) == [STARTING, STARTING, "no policies", "", "no valid certificate", "", DRAINING]
    assert [message.partition(": ")[::2] for message in caplog.messages] == [
        ("not ready", "no policies"),
        ("ready", caplog.messages[1].partition(": ")[2]),
        ("not ready", "no valid certificate"),
        ("ready", caplog.messages[3].partition(": ")[2]),
    ]
    assert "2 workers" in caplog.messages[1]
