"""A tunnel against a peer that speaks frames by hand: whatever comes ends its own streams, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pqtls.errors import Alert, TruncatedStream
from proxy import sockets
from proxy.config import Endpoint
from proxy.engine import Scratch
from proxy.reactor import Reactor
from proxy.relay import End
from proxy.tunnels import tunnel as tunnel_module
from proxy.tunnels.buffers import TunnelBuffers
from proxy.tunnels.frames import (
    CREDIT,
    HEADER,
    MAX_DATA,
    FrameType,
    Opening,
    ResetCode,
    TunnelViolation,
    address_frame,
    credit_frame,
    frame,
    open_frame,
    reset_frame,
    word_of,
)
from proxy.tunnels.tunnel import Tunnel
from tests.proxy.tunnels.rig import Side

ID = bytes(16)
OPENING = Opening(Endpoint("10.0.0.1", 80), ID)


def data(stream: int, payload: bytes) -> bytes:
    return HEADER.pack(stream, word_of(FrameType.DATA, len(payload))) + payload


class ByHand:
    """A server's tunnel, and at its other end a TLS connection whose bytes a test writes and reads."""

    def __init__(self, tcp_pair, tls_pair, *, is_client: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.reactor = Reactor(self.loop)
        self.wire, ours = tcp_pair()
        engines = tls_pair()
        self.engine, own = engines if not is_client else engines[::-1]
        self.side = Side(self.reactor)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.side.target = Endpoint(*self.listener.getsockname())
        self.side.tunnel = Tunnel(self.reactor, TunnelBuffers(Scratch()), ours, own, self.side, is_client=is_client)
        self.side.tunnel.start()
        self.received = bytearray()

    async def say(self, *frames: bytes) -> None:
        self.engine.send_data(b"".join(frames))
        await self.loop.sock_sendall(self.wire, self.engine.data_to_send())

    async def hear(self, expected: bytes) -> None:
        """Read until `expected` has come, and nothing else."""
        while len(self.received) < len(expected):
            self.side.tunnel.tidy()
            try:
                async with asyncio.timeout(0.05):
                    raw = await self.loop.sock_recv(self.wire, 65536)
            except TimeoutError:
                continue
            assert raw, "the tunnel ended"
            self.engine.receive_data(raw)
            for event in self.engine.events():
                self.received += getattr(event, "data", b"")
        assert bytes(self.received[: len(expected)]) == expected
        del self.received[: len(expected)]

    async def application(self) -> socket.socket:
        accepted, _ = await self.loop.sock_accept(self.listener)
        return accepted

    async def ended(self):
        await self.side.until(lambda: self.side.ended is not None)
        return self.side.ended

    def close(self) -> None:
        self.side.tunnel.abort(End.DRAINED)
        assert len(self.reactor) == 0
        self.reactor.close()
        self.listener.close()


@pytest.fixture
def by_hand(run, tcp_pair, tls_pair):
    def go(scenario, **options):
        async def main():
            with contextlib.closing(ByHand(tcp_pair, tls_pair, **options)) as peer:
                return await scenario(peer)

        return run(main())

    return go


def test_frames_that_come_byte_by_byte_and_all_at_once_mean_the_same(by_hand):
    frames = open_frame(1, OPENING) + data(1, b"one") + open_frame(2, OPENING) + data(2, b"two") + data(1, b" more")
    frames += frame(1, FrameType.FIN) + frame(2, FrameType.FIN)

    async def scenario(peer, cut):
        for start in range(0, len(frames), cut):
            await peer.say(frames[start : start + cut])
        found = set()
        for _ in range(2):
            with await peer.application() as application:
                got = b""
                while piece := await peer.loop.sock_recv(application, 100):
                    got += piece
                found.add(got)
        assert found == {b"one more", b"two"}

    for cut in (1, 7, 9, 31, len(frames)):
        by_hand(lambda peer, cut=cut: scenario(peer, cut))


def test_what_several_streams_have_ready_goes_out_as_one_record(joined):
    async def scenario(rig):
        pairs = [await rig.open() for _ in range(16)]
        sealer = rig.client.tunnel._engine.effects.sealer  # what is counted is on the wire
        before = sealer.records
        for app, _ in pairs:
            app.send(b"x" * 64)  # all are ready before the reactor's next turn
        for _, server in pairs:
            assert await rig.loop.sock_recv(server, 100) == b"x" * 64
        assert sealer.records == before + 1

    joined(scenario)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([data(1, b"x")], "never opened"),
        ([frame(1, FrameType.FIN)], "never opened"),
        ([open_frame(2, OPENING)], "where 1 is the next"),
        ([open_frame(1, OPENING), open_frame(1, OPENING)], "where 2 is the next"),
        ([open_frame(1, OPENING), frame(1, FrameType.FIN), data(1, b"x")], "after FIN"),
        ([open_frame(1, OPENING), frame(1, FrameType.FIN), frame(1, FrameType.FIN)], "second FIN"),
        ([open_frame(1, OPENING), credit_frame(1, 1)], "never sent"),
        ([open_frame(1, OPENING), credit_frame(1, 0)], "never sent"),
        ([open_frame(1, OPENING), frame(1, FrameType.OPENED)], "nobody waits for"),
        ([HEADER.pack(1, word_of(11, 0))], "does not exist"),
        ([HEADER.pack(1, word_of(FrameType.DATA, 0))], "does not exist"),
        ([HEADER.pack(1, word_of(FrameType.DATA, MAX_DATA + 1))], "does not exist"),
        ([HEADER.pack(1, word_of(FrameType.PING, 8)) + ID[:8]], "for stream 1"),
        ([HEADER.pack(0, word_of(FrameType.FIN, 0))], "for stream 0"),
        ([data(0, b"x")], "never opened"),
        ([open_frame(1, OPENING), frame(1, FrameType.MOVED)], "nobody made"),
        ([frame(1, FrameType.MOVED)], "never opened"),
        ([address_frame(Endpoint("10.0.0.1", 1))], "of a client"),
    ],
)
def test_what_breaks_the_framing_ends_the_tunnel_and_resets_its_streams(by_hand, frames, words):
    async def scenario(peer):
        await peer.say(*frames)
        end, error = await peer.ended()
        assert end is End.TLS_ERROR
        assert isinstance(error, TunnelViolation)
        assert words in str(error)
        assert {outcome.end for outcome in peer.side.outcomes} <= {End.TLS_ERROR}

    by_hand(scenario)


def test_data_beyond_the_credit_is_a_violation_wherever_the_frame_is_cut(by_hand):
    async def scenario(peer):
        await peer.say(open_frame(1, OPENING))
        with await peer.application():
            step = MAX_DATA - 7
            sent = 0
            while sent <= CREDIT + (8 << 20) and peer.side.ended is None:  # the application's buffers take a part
                with contextlib.suppress(OSError):
                    await peer.say(data(1, bytes(step)))
                sent += step
            end, error = await peer.ended()
        assert (end, "beyond the credit" in str(error)) == (End.TLS_ERROR, True)

    by_hand(scenario)


def test_frames_to_a_stream_that_is_over_were_under_way_and_are_dropped(by_hand):
    async def scenario(peer):
        await peer.say(open_frame(1, OPENING))
        application = await peer.application()
        await peer.hear(frame(1, FrameType.OPENED))
        await peer.say(reset_frame(1, ResetCode.RESET_BY_APPLICATION))
        with application, pytest.raises(ConnectionResetError):
            await peer.loop.sock_recv(application, 1)
        await peer.say(
            data(1, b"late"), credit_frame(1, 5), frame(1, FrameType.FIN), frame(0, FrameType.PING, b"8 bytes!")
        )
        await peer.hear(frame(0, FrameType.PONG, b"8 bytes!"))
        assert peer.side.ended is None

    by_hand(scenario)


def test_credit_is_given_back_when_the_application_has_taken_half(by_hand):
    async def scenario(peer):
        await peer.say(open_frame(1, OPENING))
        with await peer.application() as application:
            await peer.hear(frame(1, FrameType.OPENED))
            for _ in range(3):
                await peer.say(*(data(1, bytes(CREDIT // 8)) for _ in range(4)))
                left = CREDIT // 2
                while left:
                    left -= len(await peer.loop.sock_recv(application, left))
                given = 0
                while given < CREDIT // 2:
                    await peer.hear(b"")
                    while len(peer.received) < 12:
                        raw = await peer.loop.sock_recv(peer.wire, 65536)
                        peer.engine.receive_data(raw)
                        for event in peer.engine.events():
                            peer.received += getattr(event, "data", b"")
                    stream, word, count = *HEADER.unpack(peer.received[:8]), int.from_bytes(peer.received[8:12], "big")
                    assert (stream, word) == (1, word_of(FrameType.CREDIT, 4))
                    given += count
                    del peer.received[:12]
                assert given == CREDIT // 2

    by_hand(scenario)


def test_draining_is_told_once_and_streams_under_way_are_still_taken(by_hand):
    async def scenario(peer):
        peer.side.tunnel.drain()
        peer.side.tunnel.drain()
        await peer.hear(frame(0, FrameType.DRAIN))
        await peer.say(open_frame(1, OPENING), data(1, b"late"))
        with await peer.application() as application:
            assert await peer.loop.sock_recv(application, 10) == b"late"
        await peer.say(frame(0, FrameType.DRAIN))
        await peer.side.until(lambda: peer.side.drains == 1)

    by_hand(scenario)


@pytest.mark.parametrize("how", ["cut", "reset", "alert"])
def test_a_tunnel_that_ends_without_close_notify_resets_every_stream(by_hand, how):
    async def scenario(peer):
        await peer.say(open_frame(1, OPENING), open_frame(2, OPENING))
        applications = [await peer.application() for _ in range(2)]
        if how == "cut":
            peer.wire.shutdown(socket.SHUT_WR)
        elif how == "reset":
            peer.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
            peer.wire.close()
        else:
            peer.engine.abort(Alert.INTERNAL_ERROR)
            await peer.loop.sock_sendall(peer.wire, peer.engine.data_to_send())
        for application in applications:
            with application, pytest.raises(ConnectionResetError):
                await peer.loop.sock_recv(application, 1)
        end, error = await peer.ended()
        assert end is (End.RESET_BY_PEER if how == "reset" else End.TLS_ERROR)
        if how == "cut":
            assert isinstance(error, TruncatedStream)

    by_hand(scenario)


def test_close_notify_without_streams_is_an_ordinary_end(by_hand):
    async def scenario(peer):
        peer.engine.send_close_notify()
        await peer.loop.sock_sendall(peer.wire, peer.engine.data_to_send())
        assert await peer.ended() == (End.CLOSED, None)

    by_hand(scenario)


def test_close_is_heard_as_close_notify(by_hand):
    async def scenario(peer):
        peer.side.tunnel.close()
        raw = await peer.loop.sock_recv(peer.wire, 65536)
        peer.engine.receive_data(raw)
        assert peer.engine.peer_closed
        assert peer.side.ended == (End.CLOSED, None)

    by_hand(scenario)


def test_a_tunnel_whose_wire_turns_out_to_be_broken_by_its_last_words_ends_once(by_hand):
    async def scenario(peer):
        peer.side.tunnel.ping()  # goes out with the end of the turn, or with close()
        sockets.reset(peer.wire)
        peer.side.tunnel.close()
        end, error = await peer.ended()
        assert end is End.RESET_BY_PEER
        assert isinstance(error, OSError)
        peer.side.tunnel.close()

    by_hand(scenario)


def test_what_comes_behind_its_end_is_not_looked_at(run, tcp_pair, tls_pair):
    """A server may say all of it in the flight that ends the handshake: DRAIN, at which the owner closes, and junk."""

    class Closes(Side):
        def on_draining(self, tunnel):
            super().on_draining(tunnel)
            tunnel.close()

    async def main():
        reactor = Reactor(asyncio.get_running_loop())
        wire, ours = tcp_pair()
        client, server = tls_pair()
        server.send_data(b"x")
        client._buffer += b"\xff" * 5 + server.data_to_send()[5:-1]  # what came in the same read, and is no record
        side = Closes(reactor)
        side.tunnel = Tunnel(reactor, TunnelBuffers(Scratch()), ours, client, side, is_client=True)
        side.tunnel.start(frame(0, FrameType.DRAIN))
        assert side.ended == (End.CLOSED, None)
        assert len(reactor) == 0
        reactor.close()
        sockets.close(wire)

    run(main())


def test_a_client_takes_no_streams_of_its_server(by_hand):
    async def scenario(peer):
        await peer.say(open_frame(1, OPENING))
        end, error = await peer.ended()
        assert (end, type(error)) == (End.TLS_ERROR, TunnelViolation)

    by_hand(scenario, is_client=True)


def test_whoever_asks_for_answers_and_takes_none_is_given_up(by_hand):
    async def scenario(peer):
        peer.loop.remove_reader(peer.wire.fileno())
        pings = frame(0, FrameType.PING, bytes(8)) * 1000
        with contextlib.suppress(OSError):
            while peer.side.ended is None:
                await peer.say(pings)
        end, error = await peer.ended()
        assert (end, "does not read" in str(error)) == (End.TLS_ERROR, True)

    by_hand(scenario)


def test_a_bug_ends_the_tunnel_and_not_the_process(by_hand, monkeypatch, caplog):
    async def scenario(peer):
        await peer.say(open_frame(1, OPENING))
        application = await peer.application()

        def broken(*_):
            raise RuntimeError("a bug")

        monkeypatch.setattr(tunnel_module, "control_type", broken)
        await peer.say(frame(0, FrameType.PING, bytes(8)))
        with application, pytest.raises(ConnectionResetError):
            await peer.loop.sock_recv(application, 1)
        assert (await peer.ended())[0] is End.INTERNAL_ERROR

    by_hand(scenario)
    assert "a bug" in caplog.text


def test_keys_that_are_updated_in_the_middle_change_nothing(joined):
    async def scenario(rig):
        app, server = await rig.open()
        for number in range(20):
            rig.client.tunnel._engine.update_keys(request_peer=True)
            await rig.loop.sock_sendall(app, b"%d" % number)
            assert await rig.loop.sock_recv(server, 10) == b"%d" % number
            await rig.loop.sock_sendall(server, b"!")
            assert await rig.loop.sock_recv(app, 10) == b"!"

    joined(scenario)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), cuts=st.integers(1, 300))
def test_any_bytes_end_the_tunnel_or_do_nothing_and_never_the_process(run, tcp_pair, tls_pair, seed, cuts):
    chance = random.Random(seed)  # noqa: S311
    whole = open_frame(1, OPENING) + data(1, b"hello") + credit_frame(1, 3) + frame(1, FrameType.FIN)
    whole += reset_frame(1, ResetCode.DENIED) + frame(0, FrameType.PING, bytes(8)) + frame(0, FrameType.DRAIN)
    changed = bytearray(whole + os.urandom(20))
    for _ in range(chance.randrange(4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)

    async def main():
        with contextlib.closing(ByHand(tcp_pair, tls_pair)) as peer:
            with contextlib.suppress(OSError):
                for start in range(0, len(changed), cuts):
                    await peer.say(bytes(changed[start : start + cuts]))
            peer.wire.close()
            end, _ = await peer.ended()
            assert end is not End.INTERNAL_ERROR

    run(main())
