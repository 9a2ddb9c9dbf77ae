"""Connections: how many, how silent, how slow."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from pathlib import Path

import pytest

from injector import connections, serving
from tests.injector.rig import pod
from tests.injector.serving import serving as webhook
from tests.injector.serving import write_certificate
from tests.injector.test_review import review

WHOLE = json.dumps(review(pod())).encode()


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        ({"idle_seconds": 1.0}, b""),
        ({"idle_seconds": 1.0}, b"GET /healthz/live HTTP/1.1\r\nHost: a\r\n\r\n"),
        ({"head_seconds": 1.0}, b"POST /inject/namespace HTTP/1.1\r\nHost"),
    ],
)
def test_a_connection_that_says_nothing_no_more_or_half_of_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], sent: bytes
) -> None:
    monkeypatch.setattr(connections, "LIMITS", dataclasses.replace(connections.LIMITS, **limits))

    async def talk() -> bytes:
        async with webhook(write_certificate(tmp_path)) as client:
            reader, writer = await client.connect()
            writer.write(sent)
            with contextlib.closing(writer):
                return await reader.read()

    assert (b"200 OK" in asyncio.run(asyncio.wait_for(talk(), 60))) == sent.endswith(b"\r\n\r\n")


def test_an_idle_connection_of_an_api_server_is_not_closed_before_it_closes_it_itself() -> None:
    """90 s are those of client-go; at the same time both would be a request lost on the way."""
    assert connections.LIMITS.idle_seconds > 90


def test_when_there_is_no_room_a_new_connection_takes_the_place_of_a_silent_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "room_for", lambda _connections: 3)

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
