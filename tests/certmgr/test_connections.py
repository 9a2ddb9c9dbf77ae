"""One HTTP connection: how it ends when its peer is silent, slow, old or one too many."""

from __future__ import annotations

import asyncio
import functools

import pytest

from certmgr import connections, limits
from httpd.connection import Limits
from tests.certmgr.api_rig import rig, run, until

ASK = b"GET /v1/bundle HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def impatient(monkeypatch):
    """Connections are given up after a moment."""
    monkeypatch.setattr(limits, "IDLE_SECONDS", 0.2)


def test_a_connection_that_says_nothing_is_closed(impatient):
    async def main():
        async with rig() as made:
            reader, _ = await made.raw()
            assert await reader.read() == b""

    run(main())


def test_a_head_that_never_ends_is_not_waited_for(impatient):
    async def main():
        async with rig() as made:
            reader, writer = await made.raw()
            writer.write(ASK[:-2])
            closed = asyncio.create_task(reader.read())
            while not closed.done():
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.02)
            assert await closed == b""

    run(main())


def test_a_connection_is_kept_for_a_while_after_an_answer_and_not_for_ever(monkeypatch):
    monkeypatch.setattr(limits, "IDLE_SECONDS", 1.0)

    async def main():
        async with rig() as made:
            reader, writer = await made.raw()
            writer.write(ASK + ASK)
            assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2

    run(main())


def test_an_old_connection_is_closed_behind_its_next_answer(monkeypatch):
    async def main():
        async with rig() as made:
            client = made.client()
            assert "Connection" not in (await made.ask("GET", "/v1/bundle", client=client)).headers
            monkeypatch.setattr(limits, "MAX_AGE_SECONDS", 0.0)
            assert (await made.ask("GET", "/v1/bundle", client=client)).headers["Connection"] == "close"

    run(main())


def test_who_does_not_read_the_answers_is_cut_off(monkeypatch):
    monkeypatch.setattr(connections, "Limits", functools.partial(Limits, write_seconds=0.2))

    async def main():
        async with rig() as made:
            # More than the kernel's buffers and ours hold: the server has to stop writing.
            reader, writer = await made.raw()
            reader._transport.pause_reading()
            while len(made.anonymous) == 0:
                await asyncio.sleep(0.01)
            while len(made.anonymous):
                if writer.transport.get_write_buffer_size() < 64 * 1024:
                    writer.write(ASK * 20)
                await asyncio.sleep(0.01)

    run(main())


def test_of_too_many_connections_the_silent_ones_go_and_identified_peers_stay():
    async def main():
        async with rig(max_connections=4) as made:
            web = made.client(made.service.workload("web"))
            assert (await made.certificate(client=web)).status == 201
            for _ in range(12):
                await made.raw()
            await until(lambda: made.anonymous.evicted == 8)
            assert len(made.anonymous) == 4
            assert (len(made.identified), made.identified.evicted) == (1, 0)
            assert (await made.certificate(token="late")).status == 201

    run(main())


def test_a_source_has_its_share_of_connections():
    async def main():
        async with rig(max_connections=100, per_source=3) as made:
            opened = [await made.raw() for _ in range(5)]
            for reader, _ in opened[:2]:
                assert await reader.read() == b""
            assert len(made.anonymous) == 3

    run(main())
