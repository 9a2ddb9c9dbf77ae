"""Applications that talk through the mesh, as coroutines over raw sockets: many at once in one process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable

# Nothing here takes a second when all is well. It outlasts every limit of a sidecar, so that a connection that is
# rescued by one of them is told from one that hangs.
HANG = 60.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7))


def listening(host: str = "127.0.0.1") -> socket.socket:
    """A socket in an application's place that listens on a free port."""
    sock = socket.socket()
    sock.bind((host, 0))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


@contextlib.asynccontextmanager
async def serving(on_connection: Callable[[socket.socket], Awaitable[None]]) -> AsyncIterator[int]:
    """Accept on a free port, each connection with a task of its own; gives the port."""
    with listening() as listener:
        async with serving_on(listener, on_connection):
            yield listener.getsockname()[1]


@contextlib.asynccontextmanager
async def serving_on(
    listener: socket.socket, on_connection: Callable[[socket.socket], Awaitable[None]]
) -> AsyncIterator[None]:
    """Accept from `listener`, each connection with a task of its own."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            accepted, _ = await loop.sock_accept(listener)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tasks.add(task := asyncio.ensure_future(_with_closing(accepted, on_connection)))
            task.add_done_callback(tasks.discard)

    accepting = asyncio.ensure_future(accept())
    try:
        yield
    finally:
        accepting.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(accepting, *tasks, return_exceptions=True)


async def _with_closing(sock: socket.socket, on_connection: Callable[[socket.socket], Awaitable[None]]) -> None:
    with sock, contextlib.suppress(ConnectionError):  # the other side says what it saw
        await on_connection(sock)


async def echo(sock: socket.socket) -> None:
    """Give back what comes, and its end."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, 65536):
        await loop.sock_sendall(sock, data)
    sock.shutdown(socket.SHUT_WR)


@contextlib.asynccontextmanager
async def dialled(port: int, host: str = "127.0.0.1") -> AsyncIterator[socket.socket]:
    """A connection to `port`, closed afterwards."""
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        yield sock


async def refused(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a connection is reset by whom it reaches, before anything is said."""
    try:
        async with dialled(port, host) as sock:
            return await end_of(sock) == "reset"
    except ConnectionResetError:
        return True  # sooner than connect() could say that it is there


async def received(sock: socket.socket, length: int) -> bytes:
    """So many bytes; that they come is asserted."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < length:
        piece = await loop.sock_recv(sock, length - len(data))
        assert piece, f"the stream ended after {len(data)} of {length} bytes"
        data += piece
    return data


async def round_trip(sock: socket.socket, message: bytes) -> float:
    """Send `message` to an echo and have it back; the seconds that it took."""
    started = time.perf_counter()
    await asyncio.get_running_loop().sock_sendall(sock, message)
    assert await received(sock, len(message)) == message
    return time.perf_counter() - started


async def one_short(port: int, chance: random.Random) -> None:
    """One request, its answer, and the end, which is in order."""
    message = chance.randbytes(chance.choice((1, 64, 1000)))
    async with dialled(port) as sock:
        await round_trip(sock, message)
        sock.shutdown(socket.SHUT_WR)
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""


async def make(total: int, port: int, *, at_once: int = 32, kind=one_short) -> None:
    """Make `total` connections, `at_once` at a time; none may fail or hang."""
    left = iter(range(total))

    async def worker(number: int) -> None:
        chance = random.Random(number)  # noqa: S311  # the same load each time
        for _ in left:
            async with asyncio.timeout(HANG):
                await kind(port, chance)

    await asyncio.gather(*map(worker, range(at_once)))


@dataclasses.dataclass
class Load:
    """What a load that runs in the background has done so far."""

    done: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)


@contextlib.asynccontextmanager
async def under_load(port: int, host: str = "127.0.0.1", *, workers: int = 8) -> AsyncIterator[Load]:
    """Half of the workers make a connection for each request, half keep one for fifty. Failures are only noted."""
    load, stop = Load(), asyncio.Event()

    async def worker(number: int) -> None:
        chance = random.Random(number)  # noqa: S311  # the same load each time
        each = 50 if number % 2 else 1
        while not stop.is_set():
            try:
                async with asyncio.timeout(HANG), dialled(port, host) as sock:
                    for _ in range(each):
                        await round_trip(sock, chance.randbytes(chance.choice((1, 64, 1500, 20_000))))
                        load.done += 1
                        # Other work of this machine's two cores, and of the test's own, gets its turn.
                        await asyncio.sleep(0.005)
            except (OSError, AssertionError, TimeoutError) as error:
                load.failures.append(f"after {load.done} requests: {error!r}")
                await asyncio.sleep(0.05)

    tasks = [asyncio.ensure_future(worker(number)) for number in range(workers)]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def pulse(sock: socket.socket, count: int) -> list[float]:
    """The seconds of `count` small round trips, a millisecond apart."""
    message = os.urandom(64)
    found = []
    for _ in range(count):
        found.append(await round_trip(sock, message))
        await asyncio.sleep(0.001)
    return found


def percentile(seconds: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie."""
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


async def end_of(sock: socket.socket) -> str:
    """Read until the connection ends: "reset" or "fin"."""
    loop = asyncio.get_running_loop()
    try:
        while await loop.sock_recv(sock, 1 << 20):
            pass
    except ConnectionError:
        return "reset"
    return "fin"


async def until(condition: Callable[[], object], patience: float = HANG) -> None:
    """Wait until `condition`, which may block, is true."""
    deadline = time.monotonic() + patience
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it did not come to be"
        await asyncio.sleep(0.05)
