"""The load on every contender: `python -m bench.mesh.load`, a process of its own for each measurement.

Reads what to do as one JSON object from standard input and writes what it found as another. The CPU time of the
proxies is read here, at the first and the last moment of the measurement, so that nothing else is in it.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from bench.mesh.echo import COUNT, ECHO, SINK
from bench.mesh.usage import cpu_seconds

_CHUNK: Final = 256 * 1024
_HOST: Final = "127.0.0.1"
# Whoever has not answered by then is broken, and so is the measurement.
_DEADLINE: Final = 30.0
_SMALL: Final = 64

Found = dict[str, float]


def bulk(port: int, pids: list[int], *, streams: int, seconds: float) -> Found:
    """Send for `seconds` on each of `streams` connections, and wait until the application has counted everything."""
    data = SINK * _CHUNK
    epoll = select.epoll()
    sending = {sock.fileno(): sock for sock in (_connected(port) for _ in range(streams))}
    for fd, sock in sending.items():
        sock.setblocking(False)
        epoll.register(fd, select.EPOLLOUT)
    everyone = list(sending.values())
    sent = 0
    cpu, start = cpu_seconds(pids), time.perf_counter()
    while time.perf_counter() - start < seconds:
        for fd, _ in epoll.poll(_DEADLINE):
            sent += sending[fd].send(data)
    for sock in everyone:
        sock.setblocking(True)
        sock.shutdown(socket.SHUT_WR)
    counted = sum(COUNT.unpack(_exactly(sock, COUNT.size))[0] for sock in everyone)
    took = time.perf_counter() - start
    used = cpu_seconds(pids) - cpu
    if counted != sent:
        raise RuntimeError(f"{sent} bytes were sent and {counted} arrived")
    return {"gb_per_second": sent / took / 1e9, "cpu_seconds_per_gb": used / (sent / 1e9)}


def requests(port: int, pids: list[int], *, connections: int, size: int, seconds: float) -> Found:
    """Requests and answers of `size` bytes, one at a time on each of `connections`."""
    message = ECHO * size
    epoll = select.epoll()
    open_now = {}
    for _ in range(connections):
        sock = _connected(port)
        _ask(sock, message)
        open_now[sock.fileno()] = sock
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)
    missing = dict.fromkeys(open_now, size)
    since = dict.fromkeys(open_now, 0)
    took: list[int] = []
    clock = time.perf_counter_ns
    cpu, start = cpu_seconds(pids), clock()
    for fd, sock in open_now.items():
        since[fd] = clock()
        sock.send(message)
    end = start + int(seconds * 1e9)
    while clock() < end:
        for fd, _ in epoll.poll(_DEADLINE):
            sock = open_now[fd]
            left = missing[fd] - len(_some(sock))
            if left:
                missing[fd] = left
                continue
            now = clock()
            took.append(now - since[fd])
            missing[fd] = size
            since[fd] = now
            sock.send(message)
    elapsed = (clock() - start) / 1e9
    used = cpu_seconds(pids) - cpu
    return {
        "requests_per_second": len(took) / elapsed,
        "cpu_microseconds_per_request": used / len(took) * 1e6,
        **_percentiles(took),
    }


def connections(port: int, pids: list[int], *, concurrency: int, seconds: float) -> Found:
    """New connections, each from connect to the answer to its one small request; `concurrency` at a time."""
    _ask(_connected(port), ECHO * _SMALL)  # warm
    churn = _Churn(port)
    cpu = cpu_seconds(pids)
    start = time.perf_counter_ns()
    churn.run(concurrency, start + int(seconds * 1e9))
    elapsed = (time.perf_counter_ns() - start) / 1e9
    used = cpu_seconds(pids) - cpu
    return {
        "connections_per_second": len(churn.took) / elapsed,
        "cpu_microseconds_per_connection": used / len(churn.took) * 1e6,
        **_percentiles(churn.took),
    }


class _Churn:
    """Connections that come and go."""

    def __init__(self, port: int) -> None:
        self._address = (_HOST, port)
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, int]] = {}
        self._asked: set[int] = set()
        self._message = ECHO * _SMALL
        self.took: list[int] = []

    def run(self, concurrency: int, end: int) -> None:
        """Until `end`, in nanoseconds; the last ones are finished."""
        for _ in range(concurrency):
            self._begin()
        while self._open:
            for fd, _ in self._epoll.poll(_DEADLINE):
                if fd not in self._asked:
                    self._asked.add(fd)
                    self._open[fd][0].send(self._message)
                    self._epoll.modify(fd, select.EPOLLIN)
                    continue
                self._finish(fd)
                if time.perf_counter_ns() < end:
                    self._begin()

    def _begin(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[sock.fileno()] = (sock, time.perf_counter_ns())
        sock.connect_ex(self._address)
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _finish(self, fd: int) -> None:
        sock, since = self._open.pop(fd)
        self._asked.remove(fd)
        if len(_some(sock)) != _SMALL:
            raise RuntimeError("an answer of 64 bytes came in pieces")
        self.took.append(time.perf_counter_ns() - since)
        self._epoll.unregister(fd)
        sock.close()


def idle(port: int, _pids: list[int], *, connections: int) -> Found:
    """Hold `connections` that have each carried one small request, until standard input ends."""
    held = []
    for _ in range(connections):
        held.append(_connected(port))
        _ask(held[-1], ECHO * _SMALL)
    _say({"held": len(held)})
    sys.stdin.read()
    return {}


def _connected(port: int) -> socket.socket:
    sock = socket.create_connection((_HOST, port), timeout=_DEADLINE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _ask(sock: socket.socket, message: bytes) -> None:
    sock.sendall(message)
    _exactly(sock, len(message))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += _some(sock)
    return data


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(_CHUNK)
    if not data:
        raise RuntimeError("a connection was closed in the middle of the measurement")
    return data


def _percentiles(nanoseconds: list[int]) -> Found:
    nanoseconds.sort()
    return {
        f"p{percent}_ms": nanoseconds[min(len(nanoseconds) - 1, len(nanoseconds) * percent // 100)] / 1e6
        for percent in (50, 99)
    }


KINDS: Final[dict[str, Callable[..., Found]]] = {
    "bulk": bulk, "requests": requests, "connections": connections, "idle": idle,
}  # fmt: skip


def main() -> None:
    """Do what the first line of standard input says."""
    told: dict[str, Any] = json.loads(sys.stdin.readline())
    kind = KINDS[told.pop("kind")]
    if found := kind(told.pop("port"), told.pop("pids"), **told):
        _say(found)


def _say(found: Found) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
