"""Many connections of every kind at once: a wake-up that is lost, or a byte that gets stuck, shows as a time-out here.

Nothing in here waits for longer than some milliseconds when all is well; a connection that takes PATIENCE hangs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import socket
import time

import pytest

from pqtls import ApplicationData, ClientConnection, HandshakeCompleted, ServerConnection, TicketKeeper
from pqtls.provider import default_provider
from proxy import credential_files
from tests.survival.traffic import dialled, echo, received, serving

HANG = 8.0  # seconds; below the handshake's deadline of ten, which would end a hang and hide it
SECONDS = 1.5  # of each scenario
WORKERS = 12


@pytest.fixture
def mesh(qbitel, pki):
    """Start an outbound sidecar to the port of an inbound one, which leads to the port `target`; return their ports."""

    def start(target: int, *more: str) -> tuple[int, int]:
        common = ("--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0")
        inbound = qbitel(
            "proxy", *common, "--certs", pki.base / "api", "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{target}"
        )
        port = inbound.port("inbound")
        outbound = qbitel(
            "proxy", *common, *more, "--certs", pki.base / "web", "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{port}"
        )
        return outbound.port("outbound"), port

    return start


async def one_short(port: int, chance: random.Random) -> None:
    """One request and its answer. The request waits for the sidecars' handshake, and goes out right behind it."""
    loop = asyncio.get_running_loop()
    request = chance.randbytes(chance.choice((1, 64, 1500, 20_000)))
    async with dialled(port) as sock:
        await loop.sock_sendall(sock, request)
        assert await received(sock, len(request)) == request


async def one_kept_alive(port: int, chance: random.Random) -> None:
    """Thirty requests one after the other."""
    loop = asyncio.get_running_loop()
    async with dialled(port) as sock:
        for _ in range(30):
            request = chance.randbytes(chance.choice((1, 64, 64, 64, 1500, 40_000)))
            await loop.sock_sendall(sock, request)
            assert await received(sock, len(request)) == request


async def one_half_closed(port: int, chance: random.Random) -> None:
    """Everything at once with the FIN behind it; the answer comes whole, and then its FIN."""
    loop = asyncio.get_running_loop()
    request = chance.randbytes(chance.choice((0, 1, 64, 30_000)))
    async with dialled(port) as sock:
        await loop.sock_sendall(sock, request)
        sock.shutdown(socket.SHUT_WR)
        assert await received(sock, len(request)) == request
        assert await loop.sock_recv(sock, 1) == b""


async def send_cut(sock: socket.socket, data: bytes, chance: random.Random) -> None:
    """Send in one piece, or cut anywhere with a pause long enough for the other side to see the first part alone."""
    loop = asyncio.get_running_loop()
    cut = chance.choice((0, chance.randrange(len(data) + 1)))
    await loop.sock_sendall(sock, data[:cut])
    if cut:
        await asyncio.sleep(0.002)
    await loop.sock_sendall(sock, data[cut:])


async def plaintext(sock: socket.socket, connection, length: int) -> bytes:
    """Read until `length` bytes of plaintext have come."""
    loop = asyncio.get_running_loop()
    data = b""
    while True:
        data += b"".join(event.data for event in connection.events() if isinstance(event, ApplicationData))
        if len(data) >= length:
            return data
        piece = await loop.sock_recv(sock, 65536)
        assert piece, f"the stream ended after {len(data)} of {length} bytes"
        connection.receive_data(piece)


def one_data_with_finished(config):
    """A client of ours whose first data, and perhaps its end, come in the same segments as its Finished."""

    async def go(port: int, chance: random.Random) -> None:
        loop = asyncio.get_running_loop()
        request = chance.randbytes(chance.choice((1, 64, 1500, 17_000)))
        connection = ClientConnection(config)
        async with dialled(port) as sock:
            await loop.sock_sendall(sock, connection.data_to_send())
            while not any(isinstance(event, HandshakeCompleted) for event in connection.events()):
                connection.receive_data(await loop.sock_recv(sock, 65536))
            connection.send_data(request)
            if ends := chance.random() < 0.5:
                connection.send_close_notify()
            await send_cut(sock, connection.data_to_send(), chance)
            if ends:
                sock.shutdown(socket.SHUT_WR)
            assert await plaintext(sock, connection, len(request)) == request

    return go


def server_with_data_behind_tickets(config, seed: int):
    """A server of ours that says hello in the same segments as its tickets, and then echoes one message."""

    chance = random.Random(seed)  # noqa: S311  # the same cuts each time

    async def go(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection = ServerConnection(config)
        first = b""
        while not connection.handshake_complete:
            connection.receive_data(await loop.sock_recv(sock, 65536))
            if not connection.handshake_complete:
                await loop.sock_sendall(sock, connection.data_to_send())
        connection.send_data(b"hello")
        await send_cut(sock, connection.data_to_send(), chance)
        first = await plaintext(sock, connection, 5)
        connection.send_data(first)
        connection.send_close_notify()
        await send_cut(sock, connection.data_to_send(), chance)
        sock.shutdown(socket.SHUT_WR)
        await loop.sock_recv(sock, 65536)  # the client's own end

    return go


async def one_greeted(port: int, _chance: random.Random) -> None:
    loop = asyncio.get_running_loop()
    async with dialled(port) as sock:
        assert await received(sock, 5) == b"hello"
        await loop.sock_sendall(sock, b"12345")
        assert await received(sock, 5) == b"12345"
        assert await loop.sock_recv(sock, 1) == b""


async def hammer(connection, port: int) -> int:
    """Make connections of this kind, WORKERS at once, for SECONDS; each must end within HANG. How many there were."""
    end = time.monotonic() + SECONDS

    async def worker(number: int) -> int:
        chance = random.Random(number)  # noqa: S311  # the same load each time
        done = 0
        while time.monotonic() < end:
            try:
                async with asyncio.timeout(HANG):
                    await connection(port, chance)
            except TimeoutError:
                raise AssertionError(f"connection {done} of worker {number} hangs") from None
            done += 1
        return done

    return sum(await asyncio.gather(*map(worker, range(WORKERS))))


@pytest.mark.parametrize("tunnels", [(), ("--no-tunnels",)], ids=["tunnels", "single"])
@pytest.mark.parametrize("kind", [one_short, one_kept_alive, one_half_closed])
def test_no_connection_of_an_application_hangs(mesh, run, kind, tunnels):
    async def main() -> int:
        async with serving(echo) as target:
            outbound, _ = await asyncio.to_thread(mesh, target, *tunnels)
            return await hammer(kind, outbound)

    assert run(main()) > WORKERS


def test_data_that_comes_together_with_finished_is_not_stuck(mesh, run, pki):
    kind = one_data_with_finished(pki.bundle("web").client(True))

    async def main() -> int:
        async with serving(echo) as target:
            _, inbound = await asyncio.to_thread(mesh, target)
            return await hammer(kind, inbound)

    assert run(main()) > WORKERS


def test_data_behind_tickets_is_not_stuck(qbitel, run, pki):
    tickets = TicketKeeper(default_provider())
    settings = dataclasses.replace(pki.bundle("api").settings, tickets=tickets)
    config = credential_files.load(pki.files("api"), settings).server(True)

    async def main() -> int:
        async with serving(server_with_data_behind_tickets(config, 1)) as target:
            sidecar = await asyncio.to_thread(
                qbitel, "proxy", "--no-capture", "--no-tunnels", "--certs", pki.base / "web", "--explicit-outbound",
                f"127.0.0.1:0=127.0.0.1:{target}", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
            )  # fmt: skip
            return await hammer(one_greeted, sidecar.port("outbound"))

    assert run(main()) > WORKERS
