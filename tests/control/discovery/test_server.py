"""Discovery as a whole: elects, watches, writes, answers the kubelet, ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import ClientSession

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from control.discovery.discovery import Discovery
from control.discovery.peers_text import MeshSettings
from control.discovery.server import Listening, ServeOptions, serve
from kube import reconciler
from mesh import names
from mesh.errors import UserError
from tests.kube.places import Where, fake
from tests.kube.rig import Place, run, utc_now

__all__ = ["fake"]


@contextlib.contextmanager
def sockets() -> Iterator[Listening]:
    with socket.create_server(("127.0.0.1", 0)) as metrics, socket.create_server(("127.0.0.1", 0)) as health:
        yield Listening([metrics], [health])


def options(place: Place, home: str, replica: str = "one") -> ServeOptions:
    settings = MeshSettings(trust_domain="cluster.local", control_namespace=home, detects=True)
    return ServeOptions(kubeconfig=place.kubeconfig, replica=replica, settings=settings, root_namespace=home)


@contextlib.asynccontextmanager
async def running(place: Place, home: str, replica: str = "one") -> AsyncIterator[tuple[int, int]]:
    """Ports of health and metrics; ended in order at the end."""
    asked = asyncio.Event()
    with sockets() as listening:
        task = asyncio.create_task(serve(options(place, home, replica), listening, asked, now=utc_now))
        try:
            yield listening.health[0].getsockname()[1], listening.metrics[0].getsockname()[1]
        finally:
            asked.set()
            assert await task == 0


async def answer(port: int, path: str) -> tuple[int, str]:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def leads(port: int) -> bool:
    return "qbitel_discovery_leader 1.0" in (await answer(port, "/metrics"))[1]


def test_one_of_two_replicas_writes_and_the_other_goes_on_when_it_ends(
    fake: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.05)

    async def main() -> None:
        async with fake() as place:
            home, shop = await place.new_namespace(), await place.new_namespace(qbitel_injection="enabled")
            async with running(place, home, "two") as (_, second):
                async with running(place, home, "one") as (health, first):
                    while (await answer(health, "/healthz/ready"))[0] != 200:
                        await asyncio.sleep(0.02)
                    while not await place.find("configmaps", shop, names.MESH_CONFIG_MAP):
                        await asyncio.sleep(0.02)
                    assert [await leads(first), await leads(second)].count(True) == 1
                while not await leads(second):
                    await asyncio.sleep(0.02)
                place.stand_in.remove("configmaps", shop, names.MESH_CONFIG_MAP)
                while not await place.find("configmaps", shop, names.MESH_CONFIG_MAP):
                    await asyncio.sleep(0.02)
            lease = await place.find("leases", home, names.DISCOVERY_SERVICE)
            assert lease["spec"]["holderIdentity"] == "", "whoever ends lets go"

    run(main())


def test_a_part_that_fails_ends_it_with_an_exit_code(
    fake: Where, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_self: Discovery) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Discovery, "run", fails)

    async def main() -> None:
        async with fake() as place:
            with sockets() as listening:
                assert await serve(options(place, "home"), listening, asyncio.Event(), now=utc_now) == 1

    run(main())
    assert "a part of discovery failed" in caplog.text


def test_a_cluster_that_cannot_be_used_is_one_line(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.kubeconfig += "-none"
            with sockets() as listening, pytest.raises(UserError, match="does not exist"):
                await serve(options(place, "home"), listening, asyncio.Event(), now=utc_now)

    run(main())
