"""The injector as a whole: its ports, and how it comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp

from injector.serving import Listening
from tests.injector.rig import pod
from tests.injector.serving import serving, write_certificate
from tests.injector.test_review import review

WHOLE = json.dumps(review(pod())).encode()


def test_after_a_signal_reviews_are_answered_until_the_api_server_has_learnt_of_it(tmp_path: Path) -> None:
    async def talk() -> tuple[tuple[int, str], tuple[int, Any], bytes]:
        async with serving(write_certificate(tmp_path), drain_seconds=60.0) as client:
            os.kill(os.getpid(), signal.SIGTERM)
            while (ready := await client.get("/healthz/ready"))[0] == 200:
                await asyncio.sleep(0.01)
            answer = await client.ask(WHOLE)
            reader, writer = await client.connect()
            writer.write(b"GET /healthz/live HTTP/1.1\r\nHost: a\r\n\r\n")
            with contextlib.closing(writer):
                last = await reader.read()  # ends, because every answer says that its connection does
            return ready, answer, last
            # The second signal, that of leaving the block, ends it at once.

    ready, (status, answer), last = asyncio.run(asyncio.wait_for(talk(), 50))

    assert ready == (503, "draining\n")
    assert (status, answer["response"]["allowed"]) == (200, True)
    assert b"200 OK" in last


def test_metrics_are_served_in_the_clear_and_nothing_else_is(tmp_path: Path) -> None:
    async def talk() -> tuple[str, int]:
        async with (
            serving(write_certificate(tmp_path)) as client,
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{client.metrics_port}/inject/namespace") as response,
        ):
            return await client.metrics(), response.status

    figures, status = asyncio.run(talk())

    assert "qbitel_build_info" in figures
    assert status == 404


def test_closing_the_sockets_twice_is_no_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        listening = Listening([one], [other])
        listening.close()
        listening.close()
        assert one.fileno() == other.fileno() == -1
