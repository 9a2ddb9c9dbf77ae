"""Lines to a descriptor that somebody else reads, or does not: nothing here ever makes the data path wait.

A pipe that nobody reads fills up, and a write to it would stop every connection. So lines are written only when the
pipe has room for them, wait in a bounded queue otherwise, and are dropped and counted beyond that; and while a disk is
full. Lines of one turn of
the loop go out together: a system call each would cost more than they do.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import os
import select
from collections.abc import Callable
from typing import Final

# POLLOUT on a pipe promises room for PIPE_BUF = 4096 bytes (pipe(7)); lines up to that are also written in one piece,
# so that those of several workers do not mix.
MAX_LINE: Final = select.PIPE_BUF
# About 1 MB of lines: what a reader that pauses for a second may miss on a busy sidecar.
MAX_WAITING: Final = 2048
_RETRY_SECONDS: Final = 0.05
# Outside a loop nobody would come back for what is left. There, before and after serving, this long a wait is no harm.
_PATIENCE_MS: Final = 1000
# write(2): a disk or a quota is full. That passes, and a log that stays lost until a restart is worse than a gap in it.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class LineWriter:
    """Writes lines to `fd`, which it does not own. `on_drop` is called for each line that is lost.

    `on_broken` is called once, with the error, when nothing can be written any more.
    """

    def __init__(self, fd: int, on_drop: Callable[[], None], on_broken: Callable[[OSError], None]) -> None:
        self._fd: int | None = fd
        self._on_drop = on_drop
        self._on_broken = on_broken
        self._waiting: collections.deque[bytes] = collections.deque()
        self._size = 0  # bytes that wait
        self._next: asyncio.Handle | None = None  # when they are written
        self._reader_is_slow = False
        self._in_line = False  # the last thing written was a part of a line
        self._torn = False  # … and its rest is lost
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Write `line` (with its end, at most MAX_LINE bytes), now or as soon as the reader has made room."""
        if len(self._waiting) >= MAX_WAITING or self._fd is None:
            self._on_drop()
            return
        self._waiting.append(line)
        self._size += len(line)
        if self._next is not None and self._size < MAX_LINE and not self._next.cancelled():
            return  # they wait already, and to ask for the running loop is a system call
        loop = _running_loop()
        if loop is None:
            self._flush(_PATIENCE_MS)
        elif self._next is None or self._next.cancelled():
            self._next = loop.call_soon(self._flush_in, loop)
        elif self._size >= MAX_LINE and not self._reader_is_slow:
            self._flush_in(loop)

    def close(self) -> None:
        """Write what can be written without waiting; the rest is counted as dropped."""
        self._forget_next()
        self._flush(0)
        self._drop_all()

    def _flush_in(self, loop: asyncio.AbstractEventLoop) -> None:
        self._forget_next()
        if not self._flush(0):
            self._reader_is_slow = True
            self._next = loop.call_later(_RETRY_SECONDS, self._flush_in, loop)

    def _flush(self, patience_ms: int) -> bool:
        """Write the lines that wait; False where the reader has to make room first."""
        while self._waiting and self._fd is not None:
            if not self._poll.poll(patience_ms) or not self._write_some(self._fd):
                return False
        self._reader_is_slow = False
        return True

    def _forget_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _write_some(self, fd: int) -> bool:
        """Write as many of the oldest lines as go in one piece. False: the reader has to make room first."""
        piece = self._waiting.popleft()
        while self._waiting and len(piece) + len(self._waiting[0]) <= MAX_LINE:
            piece += self._waiting.popleft()
        try:
            if self._torn and os.write(fd, b"\n"):
                self._torn = self._in_line = False
            written = os.write(fd, piece)
        except BlockingIOError:  # a descriptor that its owner made non-blocking, and another writer was faster
            self._put_back(piece)
            return False
        except OSError as error:
            self._put_back(piece)
            if error.errno in _FULL:
                self._torn |= self._in_line
                self._drop_all()
                return True
            self._fd = None
            self._drop_all()
            self._on_broken(error)
            return True
        self._size -= written
        self._in_line = not piece.endswith(b"\n", 0, written)
        if written < len(piece):
            self._put_back(piece[written:])
        return True

    def _put_back(self, piece: bytes) -> None:
        self._waiting.extendleft(reversed(piece.splitlines(keepends=True)))

    def _drop_all(self) -> None:
        for _ in self._waiting:
            self._on_drop()
        self._waiting.clear()
        self._size = 0


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
