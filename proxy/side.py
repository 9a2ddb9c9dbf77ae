"""One side of a relay: a socket, what waits to be sent to it, and which of its directions have ended."""

from __future__ import annotations

import socket

from proxy import congestion


class Side:
    """One socket: what still has to be sent to it, and which of its two directions have ended."""

    __slots__ = ("events", "fd", "fin_wanted", "finished_reading", "finished_writing", "pending", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.pending = memoryview(b"")
        self.events = -1  # -1: not registered
        self.finished_reading = False
        self.fin_wanted = False  # FIN follows when `pending` is gone
        self.finished_writing = False

    def send(self, data: memoryview) -> None:
        """Send `data`, which is `pending` itself or comes behind it, and keep what the kernel does not take.

        Raises SideBroken where the socket takes nothing any more.
        """
        if self.pending and data is not self.pending:
            # Only close_notify and what came along with the handshake can come while something waits.
            self.pending = memoryview(bytes(self.pending) + bytes(data))
            return
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise SideBroken(self, error) from error
        if data is self.pending:
            self.pending = data[sent:]
        elif sent < len(data):
            # A copy, because the shared buffer is the next relay's in a moment.
            self.pending = memoryview(bytes(data[sent:]))

    def unpace(self) -> None:
        """Before bulk: where the socket does not leave this machine, send without pauses.

        Raises SideBroken where the socket takes nothing any more.
        """
        try:
            if congestion.is_loopback(self.sock.getsockname()[0]):
                congestion.unpace(self.sock)
        except OSError as error:
            raise SideBroken(self, error) from error


class SideBroken(Exception):
    """A socket failed for good: it was reset, or nobody answers any more."""

    def __init__(self, side: Side, error: OSError) -> None:
        super().__init__(str(error))
        self.side = side
        self.error = error
