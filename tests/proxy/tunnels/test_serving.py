"""The server's end: what a client opens is dialled here, within limits, and recorded."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from proxy.config import Direction, Endpoint, Limits
from proxy.record import ConnectionRecord
from proxy.relay import End
from proxy.tunnels.frames import HEADER, FrameType, Opening, ResetCode, frame, open_frame, word_of
from proxy.tunnels.serving import ServedTunnel
from proxy.tunnels.tunnel import Tunnel
from tests.proxy.tunnels.services import handshaken, services_of

PEER = Endpoint("10.0.0.9", 40000)
OPENING = Opening(Endpoint("10.96.0.1", 80), bytes(range(16)))


class Served:
    """A served tunnel, and its client by hand."""

    def __init__(self, tcp_pair, pki, limits=None, source=None, port=None) -> None:
        self.loop = asyncio.get_running_loop()
        self.services = services_of(pki.bundle("api"), limits=limits)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(8)
        self.listener.setblocking(False)
        self.wire, ours = tcp_pair()
        self.engine, engine, _, event = handshaken(pki)
        record = ConnectionRecord(self.services.sinks, Direction.INBOUND, PEER, "-", "qbitel")
        record.becomes_tunnel()
        self.kept = ServedTunnel(
            self.services, event, record, peer=PEER,
            application=Endpoint("127.0.0.1", port or self.listener.getsockname()[1]), source=source,
        )  # fmt: skip
        self.kept.start(Tunnel(self.services.reactor, self.services.buffers, ours, engine, self.kept, is_client=False))

    async def say(self, *frames: bytes) -> None:
        self.engine.send_data(b"".join(frames))
        await self.loop.sock_sendall(self.wire, self.engine.data_to_send())

    async def hear(self) -> bytes:
        while True:
            self.engine.receive_data(await self.loop.sock_recv(self.wire, 65536))
            if said := b"".join(getattr(event, "data", b"") for event in self.engine.events()):
                return said

    def close(self) -> None:
        if not self.kept.tunnel.ended:
            self.kept.end()
        self.services.reactor.close()
        self.listener.close()


@pytest.fixture
def served(run, tcp_pair, pki):
    def go(scenario, **options):
        async def main():
            with contextlib.closing(Served(tcp_pair, pki, **options)) as rig:
                await scenario(rig)

        run(main())

    return go


def test_a_stream_is_dialled_to_the_application_from_the_address_that_interception_lets_through(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING))
        accepted, address = await rig.loop.sock_accept(rig.listener)
        with accepted:
            assert address[0] == "127.0.0.6"
            assert await rig.hear() == frame(1, FrameType.OPENED)

    served(scenario, source="127.0.0.6")


def test_where_the_client_says_it_wanted_to_go_decides_nothing_here(served):
    async def scenario(rig):
        await rig.say(open_frame(1, Opening(Endpoint("127.0.0.1", 1), bytes(16))))
        accepted, _ = await rig.loop.sock_accept(rig.listener)
        accepted.close()

    served(scenario)


def test_more_connections_than_allowed_are_refused_with_the_reason(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING), open_frame(2, OPENING))
        said = await rig.hear()
        while len(said) < 18:
            said += await rig.hear()
        refusal = frame(2, FrameType.RESET, ResetCode.CONNECTION_LIMIT.to_bytes(2, "big"))
        assert refusal in said
        (line,) = rig.services.sinks.access_log.of("connection")
        assert (line["reason"], line["source"], line["connection_id"]) == (
            "connection_limit", "10.0.0.9:40000", OPENING.connection_id.hex(),
        )  # fmt: skip

    served(scenario, limits=Limits(max_connections=2))  # the tunnel is one


def test_an_address_that_cannot_even_be_dialled_is_a_refusal(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING))
        stream, word = HEADER.unpack((await rig.hear())[:8])
        assert (stream, word) == (1, word_of(FrameType.RESET, 2))
        (line,) = rig.services.sinks.access_log.of("connection")
        assert line["reason"] == "connect_failed"

    served(scenario, source="192.0.2.1")


def test_an_application_that_does_not_answer_is_given_up_at_the_second_look(served):
    async def scenario(rig):
        # A queue of one that is full: the kernel drops further SYNs.
        with socket.socket() as full, contextlib.ExitStack() as stack:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            await asyncio.sleep(0)
            rig.kept._application = Endpoint(*full.getsockname())
            await rig.say(open_frame(1, OPENING))
            while not rig.kept.tunnel.streams:
                await asyncio.sleep(0.01)
            rig.kept.sweep(rig.loop.time(), 3600)
            assert rig.kept.tunnel.streams
            rig.kept.sweep(rig.loop.time(), 3600)
            assert not rig.kept.tunnel.streams
            said = await rig.hear()
            assert said == frame(1, FrameType.RESET, ResetCode.CONNECT_TIMEOUT.to_bytes(2, "big"))
            (line,) = rig.services.sinks.access_log.of("connection")
            assert (line["flag"], line["reason"]) == ("TIMEOUT", "connect_timeout")

    served(scenario)


def test_an_old_tunnel_takes_no_new_streams_for_long(served):
    async def scenario(rig):
        rig.kept.sweep(rig.kept.born + 100, 3600)
        assert await rig.hear() == frame(0, FrameType.DRAIN)

    served(scenario, limits=Limits(tunnel_max_age=100))


def test_the_end_of_the_tunnel_writes_its_own_line_and_one_for_each_stream(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING))
        accepted, _ = await rig.loop.sock_accept(rig.listener)
        with accepted:
            rig.kept.tunnel.abort(End.REVOKED)
            log = rig.services.sinks.access_log
            assert [line["reason"] for line in log.of("connection")] == ["revoked"]
            assert [line["reason"] for line in log.of("tunnel")] == ["revoked"]
            assert len(rig.services.registry) == 0

    served(scenario)
