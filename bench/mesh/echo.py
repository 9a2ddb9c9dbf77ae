"""The application behind every contender: `python -m bench.mesh.echo`, a process of its own.

The first byte of a connection says what it is: b"E" is answered by its own bytes, b"S" is counted, and the count comes
back (64 bits) behind FIN. It prints its port, and ends with its standard input.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from typing import Final

ECHO: Final = b"E"
SINK: Final = b"S"
COUNT: Final = struct.Struct(">Q")
_READ_SIZE: Final = 256 * 1024
_BACKLOG: Final = 4096
_PER_TURN: Final = 64


class _Application:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._counts: dict[int, int] = {}  # of connections that are counted
        self._buffer = memoryview(bytearray(_READ_SIZE))

    def run(self) -> None:
        """Serve until standard input ends."""
        listener, stdin = self._listener.fileno(), sys.stdin.fileno()
        self._epoll.register(listener, select.EPOLLIN)
        self._epoll.register(stdin, select.EPOLLIN)
        while True:
            for fd, _ in self._epoll.poll(-1, _PER_TURN):
                if fd == listener:
                    self._accept()
                elif fd == stdin:
                    return
                else:
                    self._read(fd)

    def _accept(self) -> None:
        for _ in range(_PER_TURN):
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[accepted.fileno()] = accepted
            self._epoll.register(accepted.fileno(), select.EPOLLIN)

    def _read(self, fd: int) -> None:
        sock = self._sockets[fd]
        try:
            length = sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            length = 0
        if not length:
            self._finish(fd, sock)
        elif fd in self._counts:
            self._counts[fd] += length
        elif self._buffer[0] == SINK[0]:
            self._counts[fd] = length
        elif sock.send(self._buffer[:length]) != length:
            raise RuntimeError("an answer did not fit into the socket: it was meant to be small")

    def _finish(self, fd: int, sock: socket.socket) -> None:
        if fd in self._counts:
            sock.send(COUNT.pack(self._counts.pop(fd)))
        self._epoll.unregister(fd)
        del self._sockets[fd]
        sock.close()


def main() -> None:
    """Say the port, and serve."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    _Application(listener).run()


if __name__ == "__main__":
    main()
