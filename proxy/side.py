"""One side of a relay: a socket, what waits to be sent to it, what it is watched for, and which directions ended."""

from __future__ import annotations

import os
import select
import socket
from typing import Final

from proxy import congestion
from proxy.reactor import Handler, Reactor

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
# What a socket's receive buffer may hold (net.ipv4.tcp_rmem: 6 MB) in reads of READ_SIZE.
_READS_AWAY: Final = 24


class Side:
    """One socket: what still has to be sent to it, and which of its two directions have ended."""

    __slots__ = ("events", "fd", "fin_wanted", "finished_reading", "finished_writing", "pending", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.pending = memoryview(b"")
        self.events = -1  # what the reactor watches for; -1: it does not
        self.finished_reading = False
        self.fin_wanted = False  # FIN follows when `pending` is gone
        self.finished_writing = False

    def receive(self, buffer: memoryview) -> int | None:
        """Read into `buffer`, and return the number of bytes: 0 is the end, None that nothing has come.

        Raises SideBroken where the socket gives nothing any more.
        """
        try:
            return self.sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise SideBroken(self, error) from error

    def send(self, data: memoryview, flags: int = 0) -> None:
        """Send `data`, which is `pending` itself or comes behind it, and keep what the kernel does not take.

        Raises SideBroken where the socket takes nothing any more.
        """
        if self.pending and data is not self.pending:
            # Only close_notify and what came along with the handshake can come while something waits.
            self.pending = memoryview(bytes(self.pending) + bytes(data))
            return
        try:
            sent = self.sock.send(data, flags)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise SideBroken(self, error) from error
        if data is self.pending:
            self.pending = data[sent:]
        elif sent < len(data):
            # A copy, because the shared buffer is the next relay's in a moment.
            self.pending = memoryview(bytes(data[sent:]))

    def send_last(self, data: memoryview) -> None:
        """The same for what FIN follows at once, so that both leave in one packet."""
        self.send(data, socket.MSG_MORE)

    def read_away(self, buffer: memoryview) -> None:
        """Take what was sent in vain: close() with unread bytes would cut what the other end still reads."""
        try:
            for _ in range(_READS_AWAY):
                if not self.sock.recv_into(buffer):
                    return
        except OSError:
            return  # nothing is left, or nobody is there

    @property
    def is_due_to_finish(self) -> bool:
        """Whether nothing is left to be sent but FIN."""
        return self.fin_wanted and not self.finished_writing and not self.pending

    def finish_writing(self) -> None:
        """Send FIN. Raises SideBroken where the socket takes nothing any more."""
        self.finished_writing = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise SideBroken(self, error) from error

    def watch(self, reactor: Reactor, handler: Handler, *, may_read: bool) -> None:
        """Have `handler` called for what this side waits for: room for what is pending, and bytes where it `may_read`
        them.
        """
        events = _OUT if self.pending else 0
        if may_read and not self.finished_reading:
            events |= _IN
        if self.events == events:
            return
        if self.events >= 0:
            reactor.modify(self.fd, events)
        elif events or not self.finished_writing:
            reactor.register(self.fd, events, handler)
        else:
            return
        self.events = events

    def check(self, reactor: Reactor) -> None:
        """EPOLLERR or EPOLLHUP while it is not being read. Raises SideBroken where it is."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise SideBroken(self, OSError(code, os.strerror(code)))
        # HUP alone: FIN went both ways, while the other side is slow to take the rest. epoll cannot be told to keep
        # quiet about it, so that the descriptor leaves until there is something to do again.
        if self.events >= 0:
            reactor.unregister(self.fd)
            self.events = -1

    def give_up(self, reactor: Reactor) -> None:
        """Nothing is to happen here any more; the socket is closed next."""
        if self.events >= 0:
            reactor.forget(self.fd)
            self.events = -1
        self.pending = memoryview(b"")

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
