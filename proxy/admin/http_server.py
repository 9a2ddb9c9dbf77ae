"""Answers short requests on sockets that are bound already, beside a data path that it must never be in the way of.

These ports share descriptors and the loop with connections of applications. So: few connections, the oldest goes when
there are more; bounded heads and times; and one descriptor in reserve, because a sidecar that has run out of them must
still be able to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from proxy.admin.http_request import END_OF_HEAD, MAX_HEAD, BadRequest, Request, may_become_request, parse
from proxy.listener import EXHAUSTED

# Prometheus, the kubelet and a person hold a few.
MAX_CONNECTIONS: Final = 64
# Longer than the usual scrape interval would only keep idle connections open.
_KEEPALIVE_SECONDS: Final = 15.0
# An answer has at most a few MB; whoever takes so long for it does not read.
_SEND_SECONDS: Final = 30.0
# Ample for an answer that is under way when the process ends.
_SHUTDOWN_SECONDS: Final = 2.0
# How long to wait when the process has no descriptor left, before the next try.
_PAUSE_SECONDS: Final = 0.5

# An application's status, which the health port passes on, may be one of its own.
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
# RFC 9110 §15.3.5, §15.4.5. Whatever body an answer with such a status has is left out.
_WITHOUT_CONTENT: Final = frozenset({204, 304})

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

_log = logging.getLogger("qbitel.proxy")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    body: bytes
    status: int = 200
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


# It may raise HangUp.
Handler = Callable[[Request], Awaitable[Answer]]


class HangUp(Exception):
    """A request gets no answer: its connection is closed."""


def text(body: str, status: int = 200) -> Answer:
    """Plain text, with a line's end."""
    return Answer(f"{body}\n".encode(), status)


class HttpServer:
    """Serves `handler` on any number of listening sockets, which it closes at its end."""

    def __init__(self, handler: Handler, at_failure_of: Callable[[asyncio.Task[None]], None]) -> None:
        """`at_failure_of` gets each task that must not end, and looks after it."""
        self._handler = handler
        self._at_failure_of = at_failure_of
        self._accepting: list[asyncio.Task[None]] = []
        self._open: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self._answering: set[asyncio.Task[None]] = set()
        self._reserve = _Reserve()

    def start(self, listening: Sequence[socket.socket]) -> None:
        """Answer on these non-blocking sockets until `close()`. Needs a running loop."""
        for sock in listening:
            task = asyncio.get_running_loop().create_task(self._accept(sock))
            self._at_failure_of(task)
            self._accepting.append(task)

    async def close(self) -> None:
        """Stop accepting, give answers under way a moment, and close everything."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._accepting.clear()
        if self._answering:
            await asyncio.wait(self._answering, timeout=_SHUTDOWN_SECONDS)
        still_open = tuple(self._open)
        for task in still_open:
            task.cancel()
        await asyncio.gather(*still_open, return_exceptions=True)
        self._reserve.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    accepted, _ = await loop.sock_accept(listening)
                except OSError as error:
                    # Neither a connection that died in the queue (the next is not concerned) nor having no descriptor
                    # left may end this task.
                    if error.errno in EXHAUSTED and not self._reserve.lend():
                        await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                accepted.setblocking(False)
                task = loop.create_task(self._serve(accepted))
                self._open[task] = None
                task.add_done_callback(functools.partial(self._gone, accepted))
                if len(self._open) > MAX_CONNECTIONS:
                    oldest = next(iter(self._open))
                    del self._open[oldest]
                    oldest.cancel()

    def _gone(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        accepted.close()  # a task that was cancelled before it began has not
        self._open.pop(task, None)
        self._reserve.restore()

    async def _serve(self, sock: socket.socket) -> None:
        """One connection, request after request."""
        waiting = b""
        with sock, contextlib.suppress(OSError, TimeoutError):  # whoever asked is gone, or says no more
            while True:
                async with asyncio.timeout(_KEEPALIVE_SECONDS):
                    head, waiting = await _read_head(sock, waiting)
                if head is None or not await self._answer(sock, head):
                    return

    async def _answer(self, sock: socket.socket, head: bytes) -> bool:
        """Answer one request; whether another may follow."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        self._answering.add(task)
        try:
            try:
                request = parse(head)
            except BadRequest as error:
                await _send(sock, text(str(error), error.status), keep_alive=False)
                return False
            try:
                answer = await self._handler(dataclasses.replace(request, local=sock.getsockname()[0]))
            except HangUp:
                return False
            except Exception:  # noqa: BLE001  # one question's bug must not end the other answers
                _log.exception("a bug ended a request to this sidecar itself; please report it")
                answer = text("a bug of the sidecar; its log says which", 500)
            keep_alive = request.keep_alive and not self._reserve.is_lent
            await _send(sock, answer, keep_alive=keep_alive, head_only=request.method == "HEAD")
            return keep_alive
        finally:
            self._answering.discard(task)


async def _read_head(sock: socket.socket, waiting: bytes) -> tuple[bytes | None, bytes]:
    """The next head and what came behind it; None where there is no more."""
    loop = asyncio.get_running_loop()
    while END_OF_HEAD not in waiting:
        if not may_become_request(waiting):
            await _send(sock, text("that is no request of HTTP/1.1", 400), keep_alive=False)
            return None, b""
        if len(waiting) > MAX_HEAD:
            await _send(sock, text(f"the request's head has more than {MAX_HEAD} bytes", 431), keep_alive=False)
            return None, b""
        data = await loop.sock_recv(sock, MAX_HEAD)
        if not data:
            return None, b""
        waiting += data
    head, _, rest = waiting.partition(END_OF_HEAD)
    return head, rest


async def _send(sock: socket.socket, answer: Answer, *, keep_alive: bool, head_only: bool = False) -> None:
    lines = [
        f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, 'Unknown')}",
        # RFC 9110 §8.6: an answer that never has content has no length either.
        *(() if answer.status in _WITHOUT_CONTENT else (f"Content-Length: {len(answer.body)}",)),
        f"Content-Type: {answer.content_type}",
        # Answers are of this moment, and no page of somebody else's may show or guess at them.
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
        *(() if keep_alive else ("Connection: close",)),
    ]
    head = "\r\n".join(lines).encode("latin-1") + END_OF_HEAD
    async with asyncio.timeout(_SEND_SECONDS):
        bare = head_only or answer.status in _WITHOUT_CONTENT
        await asyncio.get_running_loop().sock_sendall(sock, head if bare else head + answer.body)


class _Reserve:
    """A descriptor that is given up when the process has no other, so that one more connection can be accepted."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self.restore()

    @property
    def is_lent(self) -> bool:
        """Whether some connection has it."""
        return self._fd is None

    def lend(self) -> bool:
        """Give it up; False where that was done already."""
        if self._fd is None:
            return False
        os.close(self._fd)
        self._fd = None
        return True

    def restore(self) -> None:
        """Take one back, as soon as there is one."""
        if self._fd is None:
            with contextlib.suppress(OSError):
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give it up for good."""
        self.lend()
