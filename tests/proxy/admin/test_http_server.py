"""Short answers over real sockets: bounded, kept alive, and still there when descriptors are not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os

import pytest

from proxy import sockets
from proxy.admin.http_server import MAX_CONNECTIONS, Answer, HangUp, HttpServer, text
from proxy.config import Endpoint

HERE = Endpoint("127.0.0.1", 0)
GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


def nothing_fails(task: asyncio.Task[None]) -> None:
    """In place of the process that ends with a task that raises: the test fails with it."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.result())


async def echo(request):
    if request.path == "/bug":
        raise ZeroDivisionError
    if request.path == "/never":
        await asyncio.Event().wait()
    return Answer(request.path.encode())


@contextlib.asynccontextmanager
async def serving(handler=echo):
    listening = sockets.listen(HERE)
    server = HttpServer(handler, nothing_fails)
    address = listening.getsockname()
    server.start([listening])
    try:
        yield address
    finally:
        await server.close()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.splitlines() if line.startswith("Content-Length")).split()[1]
    return int(head.split()[1]), await reader.readexactly(int(length))


def test_requests_follow_one_another_on_one_connection_however_they_are_cut(run):
    async def main():
        async with serving() as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(GET % b"one" + GET % b"two")
            first, second = await answer_of(reader), await answer_of(reader)
            for byte in GET % b"three":
                writer.write(bytes([byte]))
                await writer.drain()
            third = await answer_of(reader)
            writer.close()
            return first, second, third

    assert run(main()) == ((200, b"/one"), (200, b"/two"), (200, b"/three"))


def test_a_head_answer_has_the_length_and_no_body(run):
    async def main():
        async with serving() as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"HEAD /four HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            whole = await reader.read()
            writer.close()
            return whole

    whole = run(main())
    assert b"Content-Length: 5\r\n" in whole
    assert whole.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"NONSENSE\r\n\r\n", 400), (b"\x16\x03\x01\x08", 400), (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000, 431)],
)
def test_whoever_sends_nonsense_is_told_and_gets_no_second_try(run, sent, status):
    async def main():
        async with serving() as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            told = await answer_of(reader)
            with contextlib.suppress(ConnectionResetError):  # it was still sending
                assert await reader.read() == b""
            writer.close()
            return told[0]

    assert run(main()) == status


def test_a_bug_in_one_answer_is_said_and_the_next_is_answered(run, caplog):
    async def main():
        async with serving() as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(GET % b"bug" + GET % b"fine")
            answers = await answer_of(reader), await answer_of(reader)
            writer.close()
            return answers

    bug, fine = run(main())
    assert (bug[0], fine) == (500, (200, b"/fine"))
    assert "ZeroDivisionError" in caplog.text


def test_any_number_of_silent_connections_leaves_room_for_a_question(run):
    async def main():
        async with serving() as address:
            silent = [await asyncio.open_connection(*address) for _ in range(3 * MAX_CONNECTIONS)]
            try:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(GET % b"metrics")
                answer = await answer_of(reader)
                ended = [await reader.read(1) for reader, _ in silent[: 2 * MAX_CONNECTIONS]]
            finally:
                for _, each in (*silent, (reader, writer)):
                    each.close()
            return answer, set(ended)

    assert run(main()) == ((200, b"/metrics"), {b""})


def test_an_answer_that_never_comes_does_not_hold_up_the_end(run):
    async def main():
        async with serving() as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(GET % b"never")
            other, second = await asyncio.open_connection(*address)
            second.write(GET % b"x")
            await answer_of(other)
        assert await reader.read() == b""
        for each in (writer, second):
            each.close()

    run(main())


class LoopWhoseAcceptFails:
    """The running loop, whose sock_accept fails with these numbers first."""

    def __init__(self, numbers) -> None:
        self.numbers = list(numbers)
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name):
        return getattr(self._loop, name)

    async def sock_accept(self, sock):
        if self.numbers:
            number = self.numbers.pop(0)
            raise OSError(number, os.strerror(number))
        return await self._loop.sock_accept(sock)


@pytest.mark.parametrize("numbers", [[errno.ECONNABORTED] * 20, [errno.EMFILE]])
def test_neither_dead_connections_nor_one_descriptor_too_few_hold_up_the_next(run, monkeypatch, numbers):
    """Both go on at once: no pause is slept, and the reserve stands in for the descriptor that is missing."""

    async def main():
        failing = LoopWhoseAcceptFails(numbers)
        with monkeypatch.context() as patch:
            patch.setattr("proxy.admin.http_server.asyncio.get_running_loop", lambda: failing)
            patch.setattr("proxy.admin.http_server._PAUSE_SECONDS", "none may come")
            async with serving() as address:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(GET % b"x")
                answer = await answer_of(reader)
                writer.close()
        return answer, failing.numbers

    assert run(main()) == ((200, b"/x"), [])


def test_text_ends_its_line():
    assert text("ready").body == b"ready\n"


def whole_answer(run, handler) -> bytes:
    """Everything that a client gets for one request."""

    async def main():
        async with serving(handler) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            whole = await reader.read()
            writer.close()
            return whole

    return run(main())


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_content_has_no_length_and_no_body(run, status):
    async def bare(_request):
        return Answer(b"left out", status)

    whole = whole_answer(run, bare)
    assert whole.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Length" not in whole
    assert whole.endswith(b"\r\n\r\n")


def test_a_status_that_has_no_name_is_sent_all_the_same(run):
    async def strange(_request):
        return Answer(b"", 599)

    assert whole_answer(run, strange).startswith(b"HTTP/1.1 599 Unknown\r\n")


def test_whoever_is_hung_up_on_gets_no_byte(run):
    async def hang_up(_request):
        raise HangUp

    assert whole_answer(run, hang_up) == b""


def test_a_request_says_at_which_address_it_came(run):
    async def local(request):
        return text(request.local)

    assert whole_answer(run, local).endswith(b"127.0.0.1\n")
