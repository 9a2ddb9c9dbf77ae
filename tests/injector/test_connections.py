"""Connections: how many, how silent, how slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from injector import connections, serving
from injector.connections import Connections, connection_of
from tests.injector.rig import pod
from tests.injector.serving import serving as webhook
from tests.injector.serving import write_certificate
from tests.injector.test_review import review

WHOLE = json.dumps(review(pod())).encode()


def test_when_there_are_too_many_the_one_that_was_silent_for_the_longest_goes() -> None:
    table = Connections(2)
    closed: list[str] = []
    for name in ("one", "two"):
        table.add(name, lambda name=name: closed.append(name))  # type: ignore[misc]
    table.heard("one")

    table.add("three", lambda: closed.append("three"))

    assert (closed, len(table), table.evicted) == (["two"], 2, 1)
    table.heard("two")  # it is gone, and stays gone
    table.remove("two")
    table.remove("one")
    assert len(table) == 1


def test_a_request_that_never_comes_to_the_end_of_its_head_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk() -> bytes:
        async with webhook(write_certificate(tmp_path)) as client:
            monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
            reader, writer = await client.connect()
            writer.write(b"POST /inject/namespace HTTP/1.1\r\nHost")
            with contextlib.closing(writer):
                return await reader.read()

    assert asyncio.run(talk()) == b""


def test_a_connection_that_asks_no_more_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.2)

    async def talk() -> bytes:
        async with webhook(write_certificate(tmp_path)) as client:
            reader, writer = await client.connect()
            writer.write(b"GET /healthz/live HTTP/1.1\r\nHost: a\r\n\r\n")
            with contextlib.closing(writer):
                return await reader.read()

    assert b"200 OK" in asyncio.run(talk())


def test_whoever_does_not_read_the_answers_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.05)
    head = (
        f"POST /inject/namespace HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(WHOLE)}"
    )
    request = f"{head}\r\n\r\n".encode() + WHOLE

    async def talk() -> None:
        async with webhook(write_certificate(tmp_path)) as client:
            _, writer = await client.connect()
            transport: Any = writer.transport
            transport.pause_reading()
            # As many answers as no buffer on the way holds.
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(request)
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.close()
            assert (await client.ask(WHOLE))[0] == 200

    asyncio.run(asyncio.wait_for(talk(), 60))


def test_when_there_is_no_room_a_new_connection_takes_the_place_of_a_silent_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_room_for", lambda _connections: 3)

    async def talk() -> tuple[bytes, str]:
        async with webhook(write_certificate(tmp_path)) as client:
            silent = [await client.connect() for _ in range(5)]
            ended = await silent[0][0].read()
            assert (await client.ask(WHOLE))[0] == 200
            figures = await client.metrics()
            for _, writer in silent:
                writer.close()
            return ended, figures

    ended, figures = asyncio.run(asyncio.wait_for(talk(), 60))

    assert ended == b""
    assert "qbitel_injector_connections 3.0" in figures


def test_a_request_of_another_server_is_none_of_ours() -> None:
    with pytest.raises(TypeError, match="which no site of ours made"):
        connection_of(SimpleNamespace(protocol=None))  # type: ignore[arg-type]
