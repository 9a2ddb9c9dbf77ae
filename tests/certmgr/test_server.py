"""The whole of `qbitel certmgr serve` in one process: API, metrics and health, and how it comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from certmgr import limits, server
from certmgr.metrics import Figures
from certmgr.server import Listening, Server
from httpd.stop import Stop
from mesh.errors import UserError
from tests.certmgr.api_rig import PATIENCE, QBITEL, Rig, Tokens, run, until
from tests.certmgr.stand_in import StandIn, utc_now


class Running(StandIn):
    """A stand-in with something to do beside answering."""

    def __init__(self) -> None:
        super().__init__()
        self.running = False
        self.failure: Exception | None = None
        self.fail = asyncio.Event()

    async def run(self) -> None:
        self.running = True
        try:
            await self.fail.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.running = False


def figures() -> Figures:
    end = utc_now() + datetime.timedelta(days=1)
    return Figures("ab" * 32, end, end, "stable", ("stable", "publishing"), peers=7, revoked=0, barred=0)


def listening() -> Listening:
    api, metrics, health = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
    return Listening([api], [metrics], [health])


@contextlib.asynccontextmanager
async def serving(drain_seconds: float = PATIENCE) -> AsyncIterator[Any]:
    """A server that serves already; `code` is a task that ends with it."""
    authority, sockets, stop, tokens = Running(), listening(), Stop(), Tokens()
    made = Server(authority, tokens, sockets, profiles=QBITEL, now=utc_now, figures=figures)
    ports = {name: getattr(sockets, name)[0].getsockname()[1] for name in ("api", "metrics", "health")}
    code = asyncio.create_task(made.serve(stop, drain_seconds))
    await until(lambda: made._is_ready or code.done())
    client = Rig(authority, ports["api"], made._api, made._metrics, tokens, made._identified, made._anonymous)
    try:
        yield SimpleNamespace(authority=authority, stop=stop, code=code, ports=ports, client=client, tokens=tokens)
    finally:
        for session in client.sessions:
            await session.close()
        for writer in client.writers:
            writer.transport.abort()
        stop.ask()
        stop.ask()
        await asyncio.gather(code, return_exceptions=True)


async def status(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


def test_it_serves_announces_itself_and_shows_its_numbers(caplog):
    caplog.set_level("INFO")

    async def main():
        async with serving() as it:
            assert it.authority.running
            assert (await it.client.certificate(token="web")).status == 201
            assert (await it.client.certificate(token="expired")).status == 401
            assert await status(it.ports["health"], "/healthz/ready") == (200, "ready\n")
            assert await status(it.ports["health"], "/healthz/live") == (200, "live\n")
            code, text = await status(it.ports["metrics"], "/metrics")
            assert code == 200
            for line in (
                'qbitel_certmgr_csr_total{method="token",result="issued"} 1.0',
                'qbitel_certmgr_csr_total{method="token",result="token_expired"} 1.0',
                "qbitel_certmgr_issuance_seconds_count 1.0",
                'qbitel_certmgr_rotation_phase{phase="stable"} 1.0',
                "qbitel_certmgr_peers 7.0",
                "qbitel_certmgr_connections_evicted_total 0.0",
            ):
                assert line in text
            assert "qbitel_certmgr_root_expiry_seconds 8" in text
            for name, port in (("API", "api"), ("metrics", "metrics"), ("health", "health")):
                assert f"{name} on 127.0.0.1:{it.ports[port]}" in caplog.text
            it.stop.ask()
            assert await it.code == 0
            assert not it.authority.running

    run(main())
    assert f"the authority of cluster.local, profile qbitel, root SHA-256 {'ab' * 32} until 2" in caplog.text


def test_when_asked_to_end_it_finishes_what_it_began_and_takes_nothing_more():
    async def main():
        async with serving() as it:
            it.authority.hold = asyncio.Event()
            under_way = asyncio.create_task(it.client.certificate(token="web"))
            headers = {"If-None-Match": f'"{it.authority.bundle().etag}"', "Prefer": "wait=60"}
            waiting = asyncio.create_task(it.client.ask("GET", "/v1/bundle", headers=headers))
            await until(lambda: it.tokens.asked == 1 and it.client.api.polls == 1)
            it.stop.ask()
            assert (await waiting).status == 304
            assert (await status(it.ports["health"], "/healthz/ready"))[0] == 503
            with pytest.raises(aiohttp.ClientError):
                await it.client.certificate(token="late")
            assert not it.code.done()
            it.authority.hold.set()
            assert (await under_way).status == 201
            assert await it.code == 0

    run(main())


def test_a_second_signal_does_not_wait_for_anybody():
    async def main():
        async with serving() as it:
            it.authority.hold = asyncio.Event()
            under_way = asyncio.create_task(it.client.certificate(token="web"))
            await until(lambda: it.tokens.asked == 1)
            it.stop.ask()
            it.stop.ask()
            assert await it.code == 0
            with pytest.raises((aiohttp.ClientError, OSError)):
                await under_way

    run(main())


def test_requests_that_do_not_end_are_cut_off_after_the_time_for_draining():
    async def main():
        async with serving(drain_seconds=0.1) as it:
            it.authority.hold = asyncio.Event()
            under_way = asyncio.create_task(it.client.certificate(token="web"))
            await until(lambda: it.tokens.asked == 1)
            it.stop.ask()
            assert await it.code == 0
            with pytest.raises((aiohttp.ClientError, OSError)):
                await under_way

    run(main())


def test_an_authority_a_part_of_which_failed_ends_and_says_so(caplog):
    async def main():
        async with serving() as it:
            it.authority.failure = ZeroDivisionError("a part")
            it.authority.fail.set()
            assert await it.code == 1

    run(main())
    assert "a part of the authority failed, and it ended: a part" in caplog.text


def test_refusals_of_the_last_moment_are_written_down():
    async def main():
        async with serving() as it:
            assert (await it.client.certificate(token="expired")).status == 401
            it.stop.ask()
            assert await it.code == 0
            assert it.authority.journal == [("token_expired", "token", "127.0.0.1")]

    run(main())


def test_with_certificates_that_do_not_fit_it_does_not_begin():
    async def main():
        authority, sockets = Running(), listening()
        authority.own = authority.root
        authority.own_credential = lambda: (b"", b"")
        with contextlib.closing(sockets), pytest.raises(UserError, match="the authority's own TLS"):
            Server(authority, Tokens(), sockets, profiles=QBITEL, now=utc_now, figures=figures)

    run(main())


def test_with_few_descriptors_both_kinds_of_peers_have_their_share(monkeypatch):
    monkeypatch.setattr(server, "room_for", lambda wanted: wanted // 2)
    with contextlib.closing(listening()) as sockets:
        made = Server(Running(), Tokens(), sockets, profiles=QBITEL, now=utc_now, figures=figures)
    assert made._identified._most == limits.MAX_IDENTIFIED // 2
    assert made._anonymous._most == limits.MAX_ANONYMOUS // 2
