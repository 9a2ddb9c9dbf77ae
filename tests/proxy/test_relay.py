"""The relay against real TCP sockets: every byte, every kind of end, bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import random
import select
import socket
import struct
import tracemalloc

import pytest

from pqtls import ApplicationData, ClientConnection, ServerConnection
from pqtls.errors import Alert, AlertReceived, PeerError, TruncatedStream
from proxy.engine import READ_SIZE, Scratch
from proxy.reactor import Reactor
from proxy.relay import End, Relay

MB = 1 << 20
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


class Path:
    """app ── relay ══ TLS ══ relay ── server, or one plain relay: what the two ends and the relays' outcomes are."""

    def __init__(self, loop, tcp_pair, engines, buffer=None) -> None:
        self.loop = loop
        self.reactor = Reactor(loop)
        self.scratch = Scratch()
        self.app, left = tcp_pair(buffer=buffer)
        wire, peer_wire = tcp_pair(buffer=buffer)
        self.outcomes: list[asyncio.Future] = []
        self.relays = []
        if engines is None:
            self.server = peer_wire
            self._start(left, wire, None)
        else:
            right, self.server = tcp_pair(buffer=buffer)
            self._start(left, wire, engines[0])
            self._start(right, peer_wire, engines[1])

    def _start(self, application, wire, engine) -> None:
        future = self.loop.create_future()
        relay = Relay(self.reactor, self.scratch, application, wire, engine, future.set_result)
        self.outcomes.append(future)
        self.relays.append(relay)
        relay.start()

    async def ends(self) -> list[End]:
        outcomes = await asyncio.gather(*self.outcomes)
        assert len(self.reactor) == 0, "a relay that has ended left a descriptor behind"
        return [outcome.end for outcome in outcomes]

    async def read_all(self, sock) -> bytes:
        data = bytearray()
        while piece := await self.loop.sock_recv(sock, MB):
            data += piece
        return bytes(data)

    def close(self) -> None:
        for relay in self.relays:
            relay.abort(End.DRAINED)
        self.reactor.close()


@pytest.fixture(params=["tls", "plain"])
def kind(request):
    return request.param


@pytest.fixture
def along(run, tcp_pair, tls_pair, kind):
    """Run a scenario over a path of either kind."""

    def go(scenario, **options):
        async def main():
            engines = tls_pair() if kind == "tls" else None
            with contextlib.closing(Path(asyncio.get_running_loop(), tcp_pair, engines, **options)) as path:
                return await scenario(path)

        return run(main())

    return go


def test_a_hundred_megabytes_each_way_at_once_arrive_unchanged(along):
    size = 100 * MB
    block = random.Random(7).randbytes(1_000_003)  # noqa: S311  # a prime: no boundary of ours ever fits

    async def feed(path, sock):
        left = size
        while left:
            piece = block[: min(left, len(block))]
            await path.loop.sock_sendall(sock, piece)
            left -= len(piece)
        sock.shutdown(socket.SHUT_WR)

    async def digest(path, sock):
        found, buffer = hashlib.sha256(), bytearray(MB)
        while length := await path.loop.sock_recv_into(sock, buffer):
            found.update(memoryview(buffer)[:length])
        return found.hexdigest()

    async def scenario(path):
        results = await asyncio.gather(
            feed(path, path.app), feed(path, path.server), digest(path, path.app), digest(path, path.server)
        )
        assert set(await path.ends()) == {End.CLOSED}
        assert {tuple(relay.moved) for relay in path.relays} == {(size, size)}
        return results[2:]

    expected = hashlib.sha256()
    for start in range(0, size, len(block)):
        expected.update(block[: min(len(block), size - start)])
    assert along(scenario) == [expected.hexdigest()] * 2


def test_one_byte_at_a_time_arrives_one_byte_at_a_time(along):
    async def scenario(path):
        for byte in range(256):
            await path.loop.sock_sendall(path.app, bytes([byte]))
            assert await path.loop.sock_recv(path.server, 10) == bytes([byte])
            await path.loop.sock_sendall(path.server, bytes([byte ^ 255]))
            assert await path.loop.sock_recv(path.app, 10) == bytes([byte ^ 255])

    along(scenario)


@pytest.mark.parametrize("first", ["app", "server"])
def test_a_half_closed_connection_still_carries_the_other_direction(along, first):
    async def scenario(path):
        closing, other = (path.app, path.server) if first == "app" else (path.server, path.app)
        await path.loop.sock_sendall(closing, b"the last of this side")
        closing.shutdown(socket.SHUT_WR)
        assert await path.read_all(other) == b"the last of this side"
        for _ in range(3):
            await path.loop.sock_sendall(other, b"still" * 10_000)
            received = 0
            while received < 50_000:
                received += len(await path.loop.sock_recv(closing, MB))
        other.shutdown(socket.SHUT_WR)
        assert await path.read_all(closing) == b""
        return await path.ends()

    assert set(along(scenario)) == {End.CLOSED}


def test_both_sides_closing_at_once_is_an_orderly_end(along):
    async def scenario(path):
        path.app.shutdown(socket.SHUT_WR)
        path.server.shutdown(socket.SHUT_WR)
        return await path.ends()

    assert set(along(scenario)) == {End.CLOSED}


@pytest.mark.parametrize("first", ["app", "server"])
def test_a_reset_arrives_as_a_reset_and_not_as_an_end(along, first):
    async def scenario(path):
        resetting, other = (path.app, path.server) if first == "app" else (path.server, path.app)
        await path.loop.sock_sendall(resetting, b"x")
        assert await path.loop.sock_recv(other, 10) == b"x"
        reset(resetting)
        with pytest.raises(ConnectionResetError):
            await path.loop.sock_recv(other, 10)
        return await path.ends()

    ends = along(scenario)
    assert End.CLOSED not in ends
    assert ends[0] is (End.RESET_BY_APPLICATION if first == "app" else End.RESET_BY_PEER)


@pytest.mark.parametrize("first", ["app", "server"])
def test_a_reset_after_half_close_arrives_too(along, first):
    async def scenario(path):
        resetting, other = (path.app, path.server) if first == "app" else (path.server, path.app)
        resetting.shutdown(socket.SHUT_WR)
        assert await path.loop.sock_recv(other, 10) == b""
        reset(resetting)
        await path.ends()
        # The stream towards `other` had ended in order; the reset shows when it writes on.
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(3):
                await path.loop.sock_sendall(other, b"y")
                await asyncio.sleep(0.01)

    along(scenario)


def test_a_close_with_bytes_still_to_be_delivered_is_an_error_for_who_sends_them(along):
    async def scenario(path):
        path.app.close()  # not a half-close: nobody will ever read the answer
        assert await path.loop.sock_recv(path.server, 10) == b""
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(100):
                await path.loop.sock_sendall(path.server, bytes(1000))
                await asyncio.sleep(0.005)
        return await path.ends()

    assert End.CLOSED not in along(scenario)


@pytest.mark.parametrize("reader", ["app", "server"])
def test_a_reader_that_never_reads_stops_the_writer_and_memory_stays_bounded(along, reader):
    async def scenario(path):
        writing = path.server if reader == "app" else path.app
        tracemalloc.start()
        try:
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 200 * MB:
                    async with asyncio.timeout(0.5):
                        await path.loop.sock_sendall(writing, bytes(64 * 1024))
                    sent += 64 * 1024
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sent < 20 * MB, "the writer was never stopped"
        # One blocked buffer for each relay on the way, and change.
        assert peak < 4 * len(path.relays) * READ_SIZE
        return sent

    assert along(scenario, buffer=32 * 1024) > 0


def test_what_a_blocked_reader_left_behind_arrives_when_it_reads_again_even_after_fin(along):
    async def scenario(path):
        data = random.Random(3).randbytes(3 * MB)  # noqa: S311  # test data
        writer = asyncio.ensure_future(path.loop.sock_sendall(path.app, data))
        await asyncio.sleep(0.2)
        assert not writer.done()
        received = bytearray()
        while len(received) < len(data):
            received += await path.loop.sock_recv(path.server, 8192)
            if writer.done() and path.app.fileno() >= 0 and len(received) < len(data):
                with contextlib.suppress(OSError):
                    path.app.shutdown(socket.SHUT_WR)
        assert bytes(received) == data
        path.app.shutdown(socket.SHUT_WR)
        path.server.shutdown(socket.SHUT_WR)
        return await path.ends()

    assert set(along(scenario, buffer=16 * 1024)) == {End.CLOSED}


def test_two_directions_that_are_both_blocked_do_not_block_each_other_for_ever(along):
    async def scenario(path):
        data = os.urandom(2 * MB)
        writers = [asyncio.ensure_future(path.loop.sock_sendall(sock, data)) for sock in (path.app, path.server)]
        await asyncio.sleep(0.3)  # everything on the way is full by now

        async def read(sock):
            received = bytearray()
            while len(received) < len(data):
                received += await path.loop.sock_recv(sock, 65536)
            return bytes(received)

        assert await asyncio.gather(read(path.app), read(path.server)) == [data, data]
        await asyncio.gather(*writers)

    along(scenario, buffer=16 * 1024)


def test_fin_while_the_other_side_is_blocked_does_not_spin(along):
    async def scenario(path):
        path.server.shutdown(socket.SHUT_WR)
        assert await path.read_all(path.app) == b""
        # The relay has closed both directions towards app as soon as this is on its way, while server does not read.
        size = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                size += path.app.send(bytes(1024))
                await asyncio.sleep(0)
        path.app.shutdown(socket.SHUT_WR)
        turns = 0
        original = path.reactor._turn

        def counting():
            nonlocal turns
            turns += 1
            original()

        descriptor = path.reactor._epoll.fileno()
        path.loop.remove_reader(descriptor)
        path.loop.add_reader(descriptor, counting)
        await asyncio.sleep(0.3)
        assert turns < 50
        assert len(await path.read_all(path.server)) == size
        return await path.ends()

    assert set(along(scenario, buffer=16 * 1024)) == {End.CLOSED}


def test_two_thousand_half_closed_connections_leave_nothing_behind(along):
    async def one(loop, reactor, path):
        await loop.sock_sendall(path.app, b"request")
        path.app.shutdown(socket.SHUT_WR)
        assert await path.read_all(path.server) == b"request"
        await loop.sock_sendall(path.server, b"answer")
        path.server.shutdown(socket.SHUT_WR)
        assert await path.read_all(path.app) == b"answer"
        await path.ends()

    async def scenario(first):
        # The engine is not what is tested here; plain relays churn faster, and the sockets take the same ways.
        loop = first.loop
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(100):
            with contextlib.ExitStack() as stack:
                batch = [stack.enter_context(contextlib.closing(_plain_path(loop, first, stack))) for _ in range(20)]
                await asyncio.gather(*(one(loop, first.reactor, path) for path in batch))
        assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208

    along(scenario)


def _plain_path(loop, first, stack):
    path = object.__new__(Path)
    path.loop, path.reactor, path.scratch = loop, _Shared(first.reactor), first.scratch
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2)
        ends = []
        for _ in range(2):
            dialled = stack.enter_context(socket.create_connection(listener.getsockname()))
            accepted = stack.enter_context(listener.accept()[0])
            dialled.setblocking(False)
            accepted.setblocking(False)
            ends.append((dialled, accepted))
    path.app, path.server = ends[0][0], ends[1][1]
    path.outcomes, path.relays = [], []
    path._start(ends[0][1], ends[1][0], None)
    return path


class _Shared:
    """A reactor that several paths use: closing one path does not close it, and it is not empty."""

    def __init__(self, reactor) -> None:
        self.register, self.modify, self.unregister = reactor.register, reactor.modify, reactor.unregister
        self.forget = reactor.forget

    def __len__(self) -> int:
        return 0

    def close(self) -> None:
        """It is not ours."""


@pytest.fixture
def half(run, tcp_pair, tls_pair):
    """Run a scenario with one TLS relay whose wire ends in the test: (loop, app, wire, peer engine, outcome)."""

    def go(scenario, first=b""):
        async def main():
            loop = asyncio.get_running_loop()
            reactor = Reactor(loop)
            client, server = tls_pair()
            app, left = tcp_pair()
            wire, peer = tcp_pair()
            outcome = loop.create_future()
            relay = Relay(reactor, Scratch(), left, wire, client, outcome.set_result)
            relay.start(first)
            try:
                return await scenario(loop, app, peer, server, outcome, relay)
            finally:
                relay.abort(End.DRAINED)
                reactor.close()

        return run(main())

    return go


def test_fin_of_the_application_is_close_notify_and_fin_on_the_wire(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        await loop.sock_sendall(app, b"bye")
        app.shutdown(socket.SHUT_WR)
        while data := await loop.sock_recv(peer, 65536):
            server.receive_data(data)
        return server.peer_closed

    assert half(scenario) is True


def test_a_wire_that_ends_without_close_notify_resets_the_application(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        server.send_data(b"not all")
        await loop.sock_sendall(peer, server.data_to_send())
        assert await loop.sock_recv(app, 100) == b"not all"
        peer.close()
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(app, 100)
        return await outcome

    outcome = half(scenario)
    assert outcome.end is End.TLS_ERROR
    assert isinstance(outcome.error, TruncatedStream)


def test_a_reset_of_the_application_is_a_reset_of_the_wire_without_close_notify(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        reset(app)
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(peer, 100)
        return await outcome

    assert half(scenario).end is End.RESET_BY_APPLICATION


def test_a_record_that_was_tampered_with_is_answered_by_an_alert_and_a_reset(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        server.send_data(b"soon forged")
        forged = bytearray(server.data_to_send())
        forged[-1] ^= 1
        await loop.sock_sendall(peer, bytes(forged))
        answer = await loop.sock_recv(peer, 100)
        with pytest.raises(AlertReceived) as caught:
            server.receive_data(answer)
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(app, 100)
        assert caught.value.alert is Alert.BAD_RECORD_MAC
        return await outcome

    outcome = half(scenario)
    assert outcome.end is End.TLS_ERROR
    assert isinstance(outcome.error, PeerError)


def test_an_alert_that_came_before_a_reset_is_what_is_reported(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        server.abort(Alert.ACCESS_DENIED)
        # All before the relay gets its turn: what it notices first is that it has something to send, which fails.
        app.send(b"x" * 1000)
        peer.send(server.data_to_send())
        reset(peer)
        return await outcome

    outcome = half(scenario)
    assert outcome.end is End.TLS_ERROR
    assert isinstance(outcome.error, AlertReceived)
    assert outcome.error.alert is Alert.ACCESS_DENIED


def test_records_may_arrive_in_any_pieces(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        sent = os.urandom(60_000)
        server.send_data(sent)
        wire = server.data_to_send()
        pieces = random.Random(5)  # noqa: S311  # cuts
        received = bytearray()
        while wire:
            length = pieces.choice((1, 2, 4, 5, 6, 1000, 17_000))
            await loop.sock_sendall(peer, wire[:length])
            wire = wire[length:]
            await asyncio.sleep(0)
        while len(received) < len(sent):
            received += await loop.sock_recv(app, 65536)
        assert bytes(received) == sent

    half(scenario)


def test_keys_may_change_in_both_directions_while_data_flows(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        for number in range(50):
            server.update_keys(request_peer=True)
            server.send_data(b"%d" % number)
            await loop.sock_sendall(peer, server.data_to_send())
            assert await loop.sock_recv(app, 100) == b"%d" % number
            await loop.sock_sendall(app, b"answer")
            received = b""
            while received != b"answer":
                server.receive_data(await loop.sock_recv(peer, 65536))
                received += b"".join(getattr(event, "data", b"") for event in server.events())

    half(scenario)


def test_plaintext_that_came_with_the_handshake_goes_first(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        server.send_data(b" world")
        await loop.sock_sendall(peer, server.data_to_send())
        received = b""
        while len(received) < 11:
            received += await loop.sock_recv(app, 100)
        assert relay.moved == [0, 11]
        return received

    assert half(scenario, first=b"hello") == b"hello world"


def test_an_abort_resets_both_sides_and_is_reported_once(half):
    async def scenario(loop, app, peer, server, outcome, relay):
        relay.abort(End.IDLE)
        relay.abort(End.DRAINED)
        for sock in (app, peer):
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(sock, 100)
        return await outcome

    assert half(scenario).end is End.IDLE


def test_a_bug_in_a_relay_ends_that_relay_alone(half, caplog):
    async def scenario(loop, app, peer, server, outcome, relay):
        relay._scratch = None
        await loop.sock_sendall(app, b"x")
        return await outcome

    outcome = half(scenario)
    assert outcome.end is End.INTERNAL_ERROR
    assert "please report it" in caplog.text


@pytest.mark.parametrize("mesh", [True, False], ids=["large records", "records of RFC 8446"])
def test_a_peer_that_takes_only_tiny_records_gets_a_whole_buffer_in_them(run, tcp_pair, pki, mesh):
    """A peer may ask for inner plaintexts of 64 bytes: a third more bytes than otherwise."""

    async def main():
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        client = ClientConnection(pki.bundle("web").client(mesh))
        tiny = {"large_record_size_limit" if mesh else "record_size_limit": 64}
        server = ServerConnection(dataclasses.replace(pki.bundle("api").server(mesh), **tiny))
        for _ in range(4):
            server.receive_data(client.data_to_send())
            client.receive_data(server.data_to_send())
        client.events(), server.events()
        # The most that one turn can ever seal fits.
        assert 1.3 * READ_SIZE < client.sealed_size(READ_SIZE) <= len(Scratch().write)
        app, left = tcp_pair()
        wire, peer = tcp_pair()
        relay = Relay(reactor, Scratch(), left, wire, client, lambda _outcome: None)
        relay.start()
        sent = os.urandom(READ_SIZE)
        writing = asyncio.ensure_future(loop.sock_sendall(app, sent))
        received = b""
        while len(received) < len(sent):
            server.receive_data(await loop.sock_recv(peer, 1 << 20))
            received += b"".join(event.data for event in server.events() if isinstance(event, ApplicationData))
        await writing
        relay.abort(End.DRAINED)
        reactor.close()
        assert received == sent

    run(main())


def test_what_the_peer_said_before_it_ended_reaches_the_application_though_it_resets_then(
    run, tcp_pair, kind, tls_pair
):
    """The peer sends an answer, ends its stream, and goes with unread bytes of ours: FIN, then RST."""
    size = 4 * MB

    async def main():
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        app, application = tcp_pair(buffer=4096)
        wire, peer = tcp_pair()
        engine, far = tls_pair() if kind == "tls" else (None, None)
        future = loop.create_future()
        Relay(reactor, Scratch(), application, wire, engine, future.set_result).start()
        answer = os.urandom(size)
        if far is not None:
            far.send_data(answer)
            far.send_close_notify()
            await loop.sock_sendall(peer, far.data_to_send())
        else:
            sent = asyncio.ensure_future(loop.sock_sendall(peer, answer))
        received = bytearray()
        if far is None:
            while not sent.done():
                received += await loop.sock_recv(app, 65536)
        while size - len(received) > MB:
            received += await loop.sock_recv(app, 65536)
        peer.shutdown(socket.SHUT_WR)
        await loop.sock_sendall(app, b"never read")
        await asyncio.sleep(0.05)  # our FIN and its bytes are there, and the application is slow
        reset(peer)
        await asyncio.sleep(0.05)
        while piece := await loop.sock_recv(app, 65536):
            received += piece
            await asyncio.sleep(0)
        outcome = await future
        assert len(reactor) == 0
        reactor.close()
        return bytes(received) == answer, outcome.end, application.fileno(), wire.fileno()

    assert run(main()) == (True, End.RESET_BY_PEER, -1, -1)


@pytest.fixture
def unsent(run, tcp_pair, pki):
    """Run a scenario with a relay whose client has not sent the end of its handshake: (app, wire's end, server)."""

    def go(scenario, before=b"", finished=False):
        async def main():
            reactor = Reactor(asyncio.get_running_loop())
            client, server = (
                ClientConnection(pki.bundle("web").client(True)),
                ServerConnection(pki.bundle("api").server(True)),
            )
            server.receive_data(client.data_to_send())
            client.receive_data(server.data_to_send())
            (app, application), (peer, wire) = tcp_pair(), tcp_pair()
            app.send(before)
            if finished:
                app.shutdown(socket.SHUT_WR)
            if before or finished:
                select.select([application], [], [], 10)
            outcome = asyncio.get_running_loop().create_future()
            relay = Relay(reactor, Scratch(), application, wire, client, outcome.set_result)
            relay.start()
            try:
                return await scenario(asyncio.get_running_loop(), app, peer, server)
            finally:
                relay.abort(End.DRAINED)
                reactor.close()

        return run(main())

    return go


async def plaintext_of(loop, sock, server, size) -> bytes:
    found = b""
    while len(found) < size:
        server.receive_data(await loop.sock_recv(sock, 65536))
        found += b"".join(event.data for event in server.events() if isinstance(event, ApplicationData))
    return found


def test_the_end_of_the_handshake_leaves_with_the_first_words(unsent):
    async def scenario(loop, app, peer, server):
        select.select([peer], [], [], 10)
        server.receive_data(peer.recv(65536))  # one piece
        return [event.data for event in server.events() if isinstance(event, ApplicationData)]

    assert unsent(scenario, b"first words") == [b"first words"]


def test_the_end_of_the_handshake_waits_for_no_words(unsent):
    async def scenario(loop, app, peer, server):
        server.receive_data(await loop.sock_recv(peer, 65536))
        assert server.handshake_complete
        app.send(b"late words")
        return await plaintext_of(loop, peer, server, len(b"late words"))

    assert unsent(scenario) == b"late words"


def test_first_words_that_are_many_follow_the_end_of_the_handshake_in_order(unsent):
    many = os.urandom(100_000)

    async def scenario(loop, app, peer, server):
        return await plaintext_of(loop, peer, server, len(many))

    assert unsent(scenario, many) == many


def test_who_says_nothing_and_is_finished_has_done_its_handshake_all_the_same(unsent):
    async def scenario(loop, app, peer, server):
        while not server.peer_closed:
            server.receive_data(await loop.sock_recv(peer, 65536))
        return server.handshake_complete

    assert unsent(scenario, finished=True)


def test_an_end_and_the_fin_behind_it_are_one_packet(half):
    def segments_in(sock) -> int:
        # tcpi_segs_in of struct tcp_info (linux/tcp.h)
        (count,) = struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144), 140)
        return count

    async def scenario(loop, app, peer, server, outcome, relay):
        before = segments_in(peer)
        app.shutdown(socket.SHUT_WR)
        poll = select.poll()
        poll.register(peer, select.POLLRDHUP)
        while not poll.poll(0):
            await asyncio.sleep(0)
        server.receive_data(peer.recv(65536))
        assert server.peer_closed
        return segments_in(peer) - before

    assert half(scenario) == 1


class Refusing:
    """In place of an engine that seals nothing, and refuses whatever comes with an alert that it wants to send."""

    peer_closed = False
    has_data_to_send = False

    def take_buffered(self):
        return b""

    def events(self):
        return []

    def data_to_send(self):
        return b"alert"

    def seal_into(self, plaintext, length, records):
        records[:length] = plaintext[:length]
        return length

    def open_into(self, ciphertext, plaintext):
        raise PeerError("no", Alert.DECODE_ERROR)


@pytest.mark.parametrize("told", [True, False])
def test_the_wire_is_closed_in_order_only_where_the_alert_was_sent(run, tcp_pair, told):
    """Behind data that the kernel does not take there is no room for an alert."""

    async def main():
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        (app, application), (wire, peer) = tcp_pair(), tcp_pair(buffer=4096)
        future = loop.create_future()
        running = Relay(reactor, Scratch(), application, wire, Refusing(), future.set_result)
        running.start()
        if not told:
            sending = asyncio.ensure_future(loop.sock_sendall(app, bytes(8 * MB)))
            await asyncio.sleep(0.1)
            assert running.moved[0] > 0
            assert not sending.done()
            sending.cancel()
        await loop.sock_sendall(peer, b"anything")
        assert (await future).end is End.TLS_ERROR
        reactor.close()
        try:
            data = b""
            while piece := await loop.sock_recv(peer, MB):
                data = piece[-5:]
        except ConnectionResetError:
            return "reset"
        return data

    assert run(main()) == (b"alert" if told else "reset")


def test_a_wake_up_moves_a_busy_stream_on_and_leaves_the_others_their_turn(run, tcp_pair, kind, tls_pair):
    """Up to four reads while each is full: others wait for a mebibyte, and not for a stream that never pauses."""

    async def main():
        reactor = Reactor(asyncio.get_running_loop())
        app, left = tcp_pair(buffer=8 * MB)
        wire, _peer = tcp_pair(buffer=8 * MB)
        client = tls_pair()[0] if kind == "tls" else None
        relay = Relay(reactor, Scratch(), left, wire, client, lambda _outcome: None)
        relay.start()
        waiting = 0
        with contextlib.suppress(BlockingIOError):
            while waiting < 8 * READ_SIZE:
                waiting += app.send(bytes(READ_SIZE))
        taken = 0
        while taken < waiting and not relay.waiting:
            relay.on_ready(left.fileno(), select.EPOLLIN)
            step = relay.moved[0] - taken
            assert 0 < step <= 4 * READ_SIZE
            assert step == 4 * READ_SIZE or step % READ_SIZE or relay.waiting or taken + step == waiting
            taken += step
        assert taken > READ_SIZE, "the kernel took more than one read's worth, or the test shows nothing"
        relay.abort(End.DRAINED)
        reactor.close()

    run(main())


def test_a_stream_of_large_records_is_the_same_whatever_the_pieces_it_comes_in(run, tcp_pair, tls_pair):
    """Records end anywhere in a read: what is left of one stands in front of the next."""

    async def main():
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        client, server = tls_pair()
        app, left = tcp_pair()
        wire, peer = tcp_pair()
        relay = Relay(reactor, Scratch(), left, wire, server, lambda _outcome: None)
        relay.start()
        generator = random.Random(23)  # noqa: S311  # sizes of pieces
        sent = generator.randbytes(3 * MB)
        client.send_data(sent[:MB])
        client.update_keys(request_peer=True)
        client.send_data(sent[MB:])
        stream = client.data_to_send()
        assert len(stream) - len(sent) < 22 * (3 * MB / 65_536 + 3), "they are large"

        async def write():
            at = 0
            while at < len(stream):
                step = generator.choice((1, 3, 4, 5, 100, 65_556, 65_557, 65_558, 200_000))
                await loop.sock_sendall(peer, stream[at : at + step])
                at += step

        writing = asyncio.ensure_future(write())
        received = bytearray()
        while len(received) < len(sent):
            received += await loop.sock_recv(app, MB)
        await writing
        assert received == sent
        relay.abort(End.DRAINED)
        reactor.close()

    run(main())
