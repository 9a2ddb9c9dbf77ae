"""What the task of a connection waits for before a relay has it: bytes, room for bytes, and the end of its time.

A socket is in the reactor while somebody waits for it, and no longer: two system calls, where the loop's own sock_recv
makes eight. What need not be waited for does not wait. Limits of one length share one timer of the loop: whoever began
first is the first whose time is up.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from types import TracebackType
from typing import Final

from proxy.reactor import Reactor

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
# uvloop's clock and its timers count milliseconds, and round: a timer may come by so much (seconds) too early.
_TOO_EARLY: Final = 0.001


class Waits:
    """Of one loop. A socket is waited for by one task at a time, and by nobody who has left the wait (cancelled)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reactor: Reactor) -> None:
        self.loop = loop
        self._reactor = reactor
        self._lines: dict[float, _Line] = {}

    async def receive(self, sock: socket.socket, size: int) -> bytes:
        """Return the next bytes of `sock`, at most `size`; b"" is its end. Raises OSError."""
        while True:
            try:
                return sock.recv(size)
            except (BlockingIOError, InterruptedError):
                await self._until(sock, _IN)

    async def send_all(self, sock: socket.socket, data: bytes) -> None:
        """Hand all of `data` to the kernel. Raises OSError."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[sock.send(rest) :]
            except (BlockingIOError, InterruptedError):
                await self._until(sock, _OUT)

    async def connect(self, sock: socket.socket, address: tuple[str, int], seconds: float) -> None:
        """Connect `sock` to `address`, numbers and no name, within `seconds`. Raises OSError; TimeoutError is one."""
        error = sock.connect_ex(address)
        if error == errno.EINPROGRESS:
            if is_connected(sock):
                return
            with self.at_most(seconds):
                await self._until(sock, _OUT)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def at_most(self, seconds: float) -> TimeLimit:
        """A block for `with` in which the current task spends no longer than `seconds`: as asyncio.timeout, it raises
        TimeoutError then.
        """
        return TimeLimit(self, seconds)

    def line_of(self, seconds: float) -> _Line:
        """Where those stand who have `seconds`, from now on."""
        line = self._lines.get(seconds)
        if line is None:
            line = self._lines[seconds] = _Line(self.loop, seconds, self._lines)
        return line

    async def _until(self, sock: socket.socket, events: int) -> None:
        wait = _Wait(self._reactor, self.loop.create_future())
        fd = sock.fileno()
        self._reactor.register(fd, events, wait)
        try:
            await wait.future
        finally:
            if not wait.is_over:
                self._reactor.unregister(fd)


class _Wait:
    """In the reactor until something can be done with its socket."""

    __slots__ = ("_reactor", "future", "is_over")

    def __init__(self, reactor: Reactor, future: asyncio.Future[None]) -> None:
        self._reactor = reactor
        self.future = future
        self.is_over = False

    def on_ready(self, fd: int, _mask: int) -> None:
        """The reactor's call. What `fd` has to say, be it an error, it says to who uses it next."""
        self.is_over = True
        self._reactor.unregister(fd)
        if not self.future.done():  # it may have been cancelled, and its task not have heard of that yet
            self.future.set_result(None)

    def on_crash(self, error: Exception) -> None:
        """A bug of ours: the task hears of it."""
        if not self.future.done():
            self.future.set_exception(error)


class TimeLimit:
    """Entered once, by a task."""

    __slots__ = ("_cancelling", "_is_over", "_line", "_seconds", "_task", "_waits")

    def __init__(self, waits: Waits, seconds: float) -> None:
        self._waits = waits
        self._seconds = seconds
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task(self._waits.loop)
        if task is None:
            raise RuntimeError("only a task has time")
        self._task = task
        self._cancelling = task.cancelling()
        self._line = self._waits.line_of(self._seconds)
        self._line.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not self._is_over:
            self._line.leave(self)
        # As asyncio.timeout does it: where somebody else cancelled the task too, that counts.
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def time_is_up(self) -> None:
        """The line's call."""
        self._is_over = True
        self._task.cancel()


class _Line:
    """All who have `seconds`, in the order in which they began, and the one timer for the first of them.

    Most leave before their time is up: then the timer, when it comes, is set again for whoever is first then, and
    nothing has to be cancelled.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, lines: dict[float, _Line]) -> None:
        self.loop = loop
        self._seconds = seconds
        self._lines = lines
        self._until: dict[TimeLimit, float] = {}  # a dictionary keeps its order
        self._is_timed = False

    def enter(self, limit: TimeLimit) -> None:
        self._until[limit] = self.loop.time() + self._seconds
        if not self._is_timed:
            self._is_timed = True
            self.loop.call_later(self._seconds, self._look)

    def leave(self, limit: TimeLimit) -> None:
        del self._until[limit]

    def _look(self) -> None:
        now = self.loop.time()
        while self._until:
            limit, until = next(iter(self._until.items()))
            if until > now + _TOO_EARLY:
                self.loop.call_later(until - now, self._look)
                return
            del self._until[limit]
            limit.time_is_up()
        self._is_timed = False
        del self._lines[self._seconds]


def is_connected(sock: socket.socket) -> bool:
    """Whether connect() has done its work before it returned, as it does for a program on this machine."""
    try:
        sock.getpeername()
    except OSError:
        return False  # on its way still, or refused
    return True
