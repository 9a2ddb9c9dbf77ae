"""One HTTP connection: how it ends when its peer is silent, slow, mad or one too many."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from httpd.connection import connection_of
from tests.httpd.rig import ASK, PATIENCE, run, served, until


def test_who_says_nothing_is_closed() -> None:
    async def main() -> None:
        async with served(idle_seconds=0.2) as made:
            reader, _ = await made.open()
            assert await reader.read() == b""
            await until(lambda: len(made.table) == 0)

    run(main())


def test_who_asks_no_more_is_closed_and_was_answered() -> None:
    async def main() -> None:
        async with served(idle_seconds=1.0) as made:
            assert (await made.ask(ASK + ASK)).count(b"HTTP/1.1 200 OK") == 2

    run(main())


def test_a_head_that_never_ends_is_not_waited_for_however_busy_it_looks() -> None:
    async def main() -> None:
        async with served(head_seconds=0.2) as made:
            reader, writer = await made.open()
            writer.write(ASK[:-2])
            closed = asyncio.create_task(reader.read())
            while not closed.done():
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.02)
            assert await closed == b""

    run(main())


def test_once_a_head_has_come_the_time_for_heads_is_over() -> None:
    async def main() -> None:
        async with served(head_seconds=PATIENCE) as made:
            reader, writer = await made.open()
            writer.write(ASK[:5])
            (connection,) = await _connections(made)
            await until(lambda: connection._head_timer is not None)
            writer.write(ASK[5:] + ASK + ASK[:5])
            for _ in range(2):
                await reader.readuntil(b"hello")
            assert connection._head_timer is None
            writer.write(ASK[5:])
            await reader.readuntil(b"hello")
            assert connection._head_timer is None

    run(main())


def test_who_does_not_read_the_answers_is_cut_off() -> None:
    async def main() -> None:
        async with served(write_seconds=0.2) as made:
            _, writer = await made.open()
            transport: Any = writer.transport
            transport.pause_reading()
            # More than the kernel's buffers and ours hold: the server has to stop writing.
            writer.write(ASK.replace(b"hello", b"large") * 100)
            await until(lambda: len(made.table) == 1)
            await until(lambda: len(made.table) == 0)

    run(main())


def test_who_reads_late_but_in_time_gets_everything() -> None:
    async def main() -> None:
        async with served() as made:
            reader, writer = await made.open()
            transport: Any = writer.transport
            transport.pause_reading()
            writer.write(ASK.replace(b"hello", b"large") * 20 + ASK)
            (connection,) = await _connections(made)
            await until(lambda: connection._write_timer is not None)
            transport.resume_reading()
            came = b""
            while not came.endswith(b"hello"):
                came = came[-4:] + await reader.read(1 << 20)
            assert connection._write_timer is None

    run(main())


async def _connections(made: Any) -> list[Any]:
    await until(lambda: len(made.table) > 0)
    return list(made.table._sources)


def test_of_too_many_the_silent_ones_go() -> None:
    async def main() -> None:
        async with served(most=4) as made:
            silent = [await made.open() for _ in range(12)]
            await until(lambda: made.table.evicted == 8)
            assert len(made.table) == 4
            for reader, _ in silent[:8]:
                assert await reader.read() == b""
            _, writer = silent[8]
            writer.write(ASK)
            assert b"hello" in await silent[8][0].readuntil(b"hello")
            await made.open()
            assert await silent[9][0].read() == b"", "the one that asked something is not silent any more"

    run(main())


def test_what_is_no_http_is_told_so_and_nothing_of_it_comes_back() -> None:
    async def main() -> None:
        async with served() as made:
            answer = await made.ask(b"\x16\x03\x01 <script>\r\n\r\n")
            assert b" 400 " in answer.splitlines()[0]
            assert answer.endswith(b"no HTTP")
            assert b"script" not in answer
            assert made.errors.malformed_from == ["127.0.0.1"]

    run(main())


def test_a_bug_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with served() as made:
            answer = await made.ask(ASK.replace(b"hello", b"bug"))
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert answer.endswith(b"a bug")
            assert made.errors.failures == 1

    run(main())
    assert "a bug of ours failed a request of 127.0.0.1" in caplog.text
    assert "a secret" in caplog.text


def test_a_client_that_went_away_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with served() as made:
            assert (await made.ask(ASK.replace(b"hello", b"reset"))).startswith(b"HTTP/1.1 500 ")

    run(main())
    assert "bug" not in caplog.text


def test_headers_are_bounded_in_size_and_number() -> None:
    async def main() -> None:
        async with served(header_size=1000) as made:
            asked = ASK.removesuffix(b"\r\n") + b"%s\r\nConnection: close\r\n\r\n"
            assert b" 200 " in await made.ask(asked % (b"X: " + b"y" * 900))
            assert b" 400 " in await made.ask(asked % (b"X: " + b"y" * 1100))
            assert b" 400 " in await made.ask(asked % b"\r\n".join([b"X: y"] * 100))

    run(main())


def test_who_waits_for_a_client_learns_that_it_is_gone() -> None:
    async def main() -> None:
        async with served() as made:
            _, writer = await made.open()
            writer.write(ASK.replace(b"hello", b"waiting"))
            (connection,) = await _connections(made)
            await until(lambda: connection.on_lost is not None)
            assert connection.age >= 0
            writer.transport.abort()
            await until(lambda: made.lost == ["127.0.0.1"])

    run(main())


def test_whatever_comes_the_next_one_is_answered() -> None:
    """Truncated, changed in one place, and anything at all."""
    whole = b"GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"

    async def main(sent: list[bytes]) -> None:
        async with served() as made:
            for one in sent:
                _, writer = await made.open()
                writer.write(one)
                writer.write_eof()
                writer.transport.close()
            assert b"hello" in await made.ask(whole)

    run(main([whole[:end] for end in range(len(whole))]))
    run(main([whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :] for at in range(len(whole))]))

    @settings(max_examples=5)
    @given(st.lists(st.binary(max_size=200), max_size=20))
    def anything(sent: list[bytes]) -> None:
        run(main(sent))

    anything()


def test_a_request_that_no_site_of_ours_took_has_no_connection() -> None:
    with pytest.raises(TypeError, match="no site of ours"):
        connection_of(SimpleNamespace(protocol=None))  # type: ignore[arg-type]
