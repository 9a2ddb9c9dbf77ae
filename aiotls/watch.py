"""What the loop watches of one socket: who is called when it can be read, and who when it can be written."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

Callback = Callable[[], None]


class Watch:
    """One non-blocking socket. Asking for what is watched already costs two comparisons and no system call."""

    __slots__ = ("_loop", "_reader", "_sock", "_writer")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._reader: Callback | None = None
        self._writer: Callback | None = None

    def wait_for(self, reader: Callback | None, writer: Callback | None) -> None:
        """From now on call `reader` when there is something to read, and `writer` when there is room; None: nobody."""
        if reader != self._reader:
            self._reader = reader
            if reader is None:
                self._loop.remove_reader(self._sock)
            else:
                self._loop.add_reader(self._sock, reader)
        if writer != self._writer:
            self._writer = writer
            if writer is None:
                self._loop.remove_writer(self._sock)
            else:
                self._loop.add_writer(self._sock, writer)
