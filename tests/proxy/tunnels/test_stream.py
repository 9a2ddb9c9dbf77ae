"""One stream among others: every byte, every kind of end, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct

import pytest

from proxy.config import Endpoint
from proxy.relay import End
from proxy.tunnels.ends import StreamReset
from proxy.tunnels.frames import CREDIT, Opening, ResetCode
from tests.proxy.tunnels.rig import MB

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def ends(side) -> list[End]:
    return [outcome.end for outcome in side.outcomes]


def test_bytes_arrive_both_ways_and_both_sides_count_the_same(joined):
    async def scenario(rig):
        app, server = await rig.open()
        await rig.loop.sock_sendall(app, b"question")
        assert await rig.loop.sock_recv(server, 100) == b"question"
        await rig.loop.sock_sendall(server, b"a longer answer")
        assert await rig.loop.sock_recv(app, 100) == b"a longer answer"
        app.shutdown(socket.SHUT_WR)
        assert await rig.loop.sock_recv(server, 100) == b""
        server.shutdown(socket.SHUT_WR)
        assert await rig.loop.sock_recv(app, 100) == b""
        await rig.client.until(lambda: rig.client.outcomes and rig.server.outcomes)
        (mine,), (theirs,) = rig.client.outcomes, rig.server.outcomes
        assert (mine.end, mine.from_application, mine.from_wire) == (End.CLOSED, 8, 15)
        assert (theirs.end, theirs.from_application, theirs.from_wire) == (End.CLOSED, 15, 8)
        assert rig.client.connected == rig.server.connected == 1
        assert not rig.client.tunnel.streams and not rig.server.tunnel.streams

    joined(scenario)


@pytest.mark.parametrize("buffer", [None, 4096])
def test_megabytes_each_way_in_several_streams_at_once_arrive_unchanged(joined, buffer):
    size = 3 * MB if buffer else 20 * MB
    streams = 3

    async def feed(rig, sock, seed):
        running, chance = hashlib.sha256(), random.Random(seed)  # noqa: S311  # the same load each time
        left = size
        while left:
            piece = chance.randbytes(min(left, chance.randrange(1, 200_000)))
            running.update(piece)
            await rig.loop.sock_sendall(sock, piece)
            left -= len(piece)
        sock.shutdown(socket.SHUT_WR)
        return running.hexdigest()

    async def digest(rig, sock):
        running, buffer = hashlib.sha256(), bytearray(MB)
        while length := await rig.loop.sock_recv_into(sock, buffer):
            running.update(memoryview(buffer)[:length])
        return running.hexdigest()

    async def scenario(rig):
        ends_of = [await rig.open(buffer=buffer) for _ in range(streams)]
        work = []
        for number, (app, server) in enumerate(ends_of):
            work += [feed(rig, app, number), digest(rig, server), feed(rig, server, ~number), digest(rig, app)]
        found = await asyncio.gather(*work)
        for index in range(0, len(found), 2):
            assert found[index] == found[index + 1]
        assert set(ends(rig.client)) == {End.CLOSED}

    joined(scenario, buffer=buffer)


def test_one_byte_at_a_time_arrives_one_byte_at_a_time(joined):
    async def scenario(rig):
        app, server = await rig.open()
        for byte in range(256):
            await rig.loop.sock_sendall(app, bytes([byte]))
            assert await rig.loop.sock_recv(server, 10) == bytes([byte])

    joined(scenario)


def test_half_a_connection_stays_open_as_long_as_its_application_wants(joined):
    async def scenario(rig):
        app, server = await rig.open()
        app.shutdown(socket.SHUT_WR)
        assert await rig.loop.sock_recv(server, 1) == b""
        for _ in range(3):
            await rig.loop.sock_sendall(server, b"still here")
            assert await rig.loop.sock_recv(app, 100) == b"still here"
        server.close()
        assert await rig.loop.sock_recv(app, 1) == b""
        await rig.client.until(lambda: ends(rig.client) == [End.CLOSED])

    joined(scenario)


@pytest.mark.parametrize("first", ["app", "server"])
def test_a_reset_arrives_as_a_reset_and_the_neighbour_goes_on(joined, first):
    async def scenario(rig):
        app, server = await rig.open()
        neighbours = await rig.open()
        await rig.loop.sock_sendall(app, b"x")
        assert await rig.loop.sock_recv(server, 1) == b"x"
        resetting, other = (app, server) if first == "app" else (server, app)
        reset(resetting)
        with pytest.raises(ConnectionResetError):
            await rig.loop.sock_recv(other, 1)
        near, far = (rig.client, rig.server) if first == "app" else (rig.server, rig.client)
        await far.until(lambda: ends(far) == [End.RESET_BY_PEER])
        assert ends(near) == [End.RESET_BY_APPLICATION]
        await rig.loop.sock_sendall(neighbours[0], b"unharmed")
        assert await rig.loop.sock_recv(neighbours[1], 100) == b"unharmed"

    joined(scenario)


def test_an_application_that_never_reads_stops_its_own_sender_and_nobody_else(joined):
    async def scenario(rig):
        stalled, _ = await rig.open()
        app, server = await rig.open()
        sent = 0
        # Until nothing goes any more: the credit is used up, and the buffers of two sockets are full.
        while True:
            try:
                sent += stalled.send(bytes(MB))
            except BlockingIOError:
                before = next(iter(rig.client.tunnel.streams.values())).moved[0]
                await asyncio.sleep(0.05)
                (first, *_) = rig.client.tunnel.streams.values()
                if first.moved[0] == before and before:
                    break
        for _ in range(100):
            await rig.loop.sock_sendall(app, b"ping")
            assert await rig.loop.sock_recv(server, 100) == b"ping"
        theirs = next(iter(rig.server.tunnel.streams.values()))
        assert len(theirs._pending) <= CREDIT  # the bound that is promised

    joined(scenario)


def test_data_behind_open_does_not_wait_for_the_application_to_accept(joined):
    async def scenario(rig):
        app = rig.dial()
        app.send(b"at once")
        app.shutdown(socket.SHUT_WR)
        server, _ = await rig.loop.sock_accept(rig.listener)
        with server:
            assert await rig.read_all(server) == b"at once"

    joined(scenario)


def test_an_application_that_is_not_there_is_a_reset_with_the_reason(joined):
    async def scenario(rig):
        rig.listener.close()
        app = rig.dial()
        with pytest.raises(ConnectionResetError):
            await rig.loop.sock_recv(app, 1)
        (outcome,) = rig.client.outcomes
        assert outcome.end is End.REFUSED
        assert isinstance(outcome.error, StreamReset)
        assert outcome.error.code is ResetCode.CONNECT_FAILED
        assert ends(rig.server) == [End.CONNECT_FAILED]

    joined(scenario)


def test_a_refused_stream_is_a_reset_with_the_reason(joined):
    async def scenario(rig):
        app = rig.dial()
        with pytest.raises(ConnectionResetError):
            await rig.loop.sock_recv(app, 1)
        (outcome,) = rig.client.outcomes
        assert (outcome.end, outcome.error.code) == (End.REFUSED, ResetCode.DENIED)

    joined(scenario, refuse=ResetCode.DENIED)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (End.IDLE, ResetCode.IDLE),
        (End.DRAINED, ResetCode.DRAINED),
        (End.REVOKED, ResetCode.REVOKED),
        (End.DENIED, ResetCode.DENIED),
    ],
)
def test_whoever_ends_a_stream_says_why(joined, end, code):
    async def scenario(rig):
        app, server = await rig.open()
        next(iter(rig.server.tunnel.streams.values())).abort(end)
        with pytest.raises(ConnectionResetError):
            await rig.loop.sock_recv(app, 1)
        with pytest.raises(ConnectionResetError):
            await rig.loop.sock_recv(server, 1)
        (outcome,) = rig.client.outcomes
        assert (outcome.end, outcome.error.code) == (End.REFUSED, code)
        assert ends(rig.server) == [end]

    joined(scenario)


def test_both_ends_closing_at_once_is_an_ordinary_end(joined):
    async def scenario(rig):
        for _ in range(50):
            app, server = await rig.open()
            await rig.loop.sock_sendall(app, b"a")
            await rig.loop.sock_sendall(server, b"b")
            assert await rig.loop.sock_recv(server, 1) == b"a"
            assert await rig.loop.sock_recv(app, 1) == b"b"
            app.shutdown(socket.SHUT_WR)
            server.shutdown(socket.SHUT_WR)
            assert await rig.loop.sock_recv(app, 1) == b""
            assert await rig.loop.sock_recv(server, 1) == b""
        await rig.client.until(lambda: len(rig.client.outcomes) == 50)
        assert set(ends(rig.client)) == {End.CLOSED}

    joined(scenario)


def test_what_the_application_has_sent_already_goes_out_with_what_opens_the_stream(joined):
    async def scenario(rig):
        sealer = rig.client.tunnel._engine.effects.sealer
        before = sealer.records
        app, near = rig.tcp_pair()
        app.send(b"hello")
        opening = Opening(Endpoint("10.0.0.1", 80), bytes(16))
        rig.client.tunnel.open(opening, lambda number: rig.client.stream(number, near))
        server, _ = await rig.loop.sock_accept(rig.listener)
        with server:
            assert await rig.loop.sock_recv(server, 100) == b"hello"
        assert sealer.records == before + 1

    joined(scenario)


def test_that_the_application_has_accepted_is_said_with_the_next_frame_or_in_time(joined):
    async def scenario(rig):
        app, server = await rig.open()
        await rig.loop.sock_sendall(server, b"x")
        assert await rig.loop.sock_recv(app, 1) == b"x"
        assert rig.client.connected == 1
        await rig.open()
        await rig.server.until(lambda: rig.server.connected == 2)
        assert rig.client.connected == 1
        rig.server.tunnel.tidy()
        await rig.client.until(lambda: rig.client.connected == 2)

    joined(scenario)


def test_what_one_stream_has_to_say_goes_before_the_end_of_another(joined):
    """FIN and close() wake an application that nobody waits for; data is what somebody waits for."""

    class Watched:
        """A stream's socket, and in which order it and others were used."""

        def __init__(self, sock, order, name) -> None:
            self.sock, self.order, self.name = sock, order, name

        def __getattr__(self, name):
            if name in ("send", "shutdown", "close"):
                self.order.append((self.name, name))
            return getattr(self.sock, name)

    async def scenario(rig):
        (app_1, server_1), (app_2, server_2) = await rig.open(), await rig.open()
        for app, server in ((app_1, server_1), (app_2, server_2)):
            await rig.loop.sock_sendall(app, b"question")
            assert await rig.loop.sock_recv(server, 100) == b"question"
        order = []
        for side in (rig.client, rig.server):
            for number, stream in side.tunnel.streams.items():
                stream._sock = Watched(stream._sock, order, number)
        # One turn's frames of the client: FIN of the first stream, then DATA of the second.
        app_1.shutdown(socket.SHUT_WR)
        app_2.send(b"more")
        assert await rig.loop.sock_recv(server_2, 100) == b"more"
        assert await rig.loop.sock_recv(server_1, 100) == b""
        assert order == [(2, "send"), (1, "shutdown")]
        order.clear()
        # … and the other way, where FIN is the end of the first stream.
        server_1.close()
        server_2.send(b"answer")
        assert await rig.loop.sock_recv(app_2, 100) == b"answer"
        assert await rig.loop.sock_recv(app_1, 100) == b""
        await rig.client.until(lambda: rig.client.outcomes and rig.server.outcomes)
        assert sorted(order) == [(1, "close"), (1, "close"), (2, "send")]
        assert order.index((2, "send")) < order.index((1, "close"), 1)
        assert ends(rig.client) == ends(rig.server) == [End.CLOSED]
        assert list(rig.client.tunnel.streams) == list(rig.server.tunnel.streams) == [2]

    joined(scenario)
