"""The client's end of a tunnel: which streams it takes, where it would move bulk, and when it makes room."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from pqtls.events import ApplicationData
from proxy.config import Direction, Endpoint
from proxy.handshake import HandshakeResult
from proxy.peers.via import Via
from proxy.record import ConnectionRecord
from proxy.tunnels.client import ClientTunnel
from proxy.tunnels.frames import (
    HEADER,
    HEADER_SIZE,
    LENGTH_MASK,
    FrameType,
    TunnelViolation,
    address_frame,
    frame,
    read_open,
)
from proxy.tunnels.moving import Dialled
from tests.proxy.tunnels.services import handshaken, services_of


class Rig:
    """A client's tunnel, and its server by hand."""

    def __init__(self, tcp_pair, pki, via: Via | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.services = services_of(pki.bundle("web"))
        wire, self.peer = tcp_pair()
        client, self.engine, event, _ = handshaken(pki)
        self.sessions: list[object] = []
        self.left: list[object] = []
        self.found: list[object] = []
        self.replaced: list[object] = []
        record = ConnectionRecord(self.services.sinks, Direction.OUTBOUND, Endpoint("127.0.0.1", 1), "-", "qbitel")
        record.becomes_tunnel()
        self.kept = ClientTunnel(
            self.services,
            Dialled(wire, client, HandshakeResult(event, 0.01, b""), self.sessions.append),
            record,
            bundle=self.services.credentials.current,
            via=via or Via(Endpoint("10.96.0.1", 80)),
            leave=self.left.append,
            replace=self.replaced.append,
            found=self.found.append,
        )
        self.kept.begin()

    async def say(self, *frames: bytes) -> None:
        self.engine.send_data(b"".join(frames))
        await self.loop.sock_sendall(self.peer, self.engine.data_to_send())

    async def until(self, condition) -> None:
        while not condition():
            await asyncio.sleep(0.005)

    def close(self) -> None:
        if not self.kept.tunnel.ended:
            self.kept.end()
        self.services.reactor.close()


@pytest.fixture
def client(run, tcp_pair, pki):
    def go(scenario):
        async def main():
            with contextlib.closing(Rig(tcp_pair, pki)) as rig:
                await scenario(rig)

        run(main())

    return go


def test_new_credentials_make_it_take_no_more_streams_and_end_when_it_is_empty(client):
    async def scenario(rig):
        assert rig.kept.takes_streams
        rig.services.credentials.current = object()
        assert not rig.kept.takes_streams
        rig.kept.sweep(rig.kept.born + 1, 3600)
        assert rig.left == [rig.kept]
        assert rig.kept.tunnel.ended

    client(scenario)


def test_age_makes_it_leave_its_place_once(client):
    async def scenario(rig):
        rig.kept.taken()  # so that it is not closed for want of streams
        rig.kept.sweep(rig.kept.born + 539, 3600)
        assert rig.replaced == []
        rig.kept.sweep(rig.kept.born + 599, 3600)
        assert rig.left == []
        assert rig.replaced == [rig.kept]
        rig.kept.sweep(rig.kept.born + 600.001, 3600)
        assert rig.left == [rig.kept]

    client(scenario)


def test_a_tunnel_that_nobody_has_used_for_long_is_not_replaced(client):
    async def scenario(rig):
        rig.kept._empty_since = rig.kept.born - 61
        rig.kept.sweep(rig.kept.born + 599, 3600)
        assert rig.replaced == []

    client(scenario)


@pytest.mark.parametrize(("age", "replaced"), [(4.0, 0), (5.0, 1)])
def test_a_server_that_drains_is_replaced_unless_it_was_only_just_dialled(client, age, replaced):
    async def scenario(rig):
        rig.kept.taken()
        rig.kept.born = rig.loop.time() - age
        rig.kept.on_draining(rig.kept.tunnel)
        assert rig.replaced == [rig.kept] * replaced
        assert rig.left == [rig.kept]

    client(scenario)


@pytest.mark.parametrize(("by_stream", "opened"), [(False, None), (True, 8080)])
def test_a_stream_names_its_own_port_where_the_tunnel_port_was_dialled(run, tcp_pair, pki, by_stream, opened):
    async def scenario():
        via = Via(Endpoint("10.96.0.1", 15008), by_stream=by_stream)
        with contextlib.closing(Rig(tcp_pair, pki, via)) as rig:
            near, application = tcp_pair()
            record = ConnectionRecord(rig.services.sinks, Direction.OUTBOUND, Endpoint("127.0.0.1", 1), "-", "qbitel")
            rig.kept.carry(application, record, 8080)
            near.close()
            rig.engine.receive_data(await rig.loop.sock_recv(rig.peer, 65536))
            (data,) = (event.data for event in rig.engine.events() if isinstance(event, ApplicationData))
            _, word = HEADER.unpack_from(data)
            opening = read_open(data[HEADER_SIZE : HEADER_SIZE + (word & LENGTH_MASK)])
            dialled = rig.peer.getsockname()
            assert opening.destination == Endpoint(dialled[0], opened or dialled[1])

    run(scenario())


def test_a_server_that_drains_is_asked_for_nothing_more(client):
    async def scenario(rig):
        await rig.say(frame(0, FrameType.DRAIN))
        await rig.until(lambda: rig.kept.tunnel.ended)
        assert rig.left == [rig.kept]

    client(scenario)


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        ("10.1.2.3", True),
        ("fd00::5", True),
        ("127.0.0.1", True),  # the tunnel itself leads there
        ("127.0.0.2", False),
        ("::1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
    ],
)
def test_a_servers_address_is_believed_unless_it_is_inside_this_machine(client, told, believed):
    async def scenario(rig):
        await rig.say(address_frame(Endpoint(told, 8080)), frame(0, FrameType.PING, bytes(8)))
        await rig.loop.sock_recv(rig.peer, 65536)  # the PONG: everything before it was read
        assert (rig.kept._server is not None) == believed

    client(scenario)


def test_the_end_of_the_process_ends_it_with_its_last_stream(client):
    async def scenario(rig):
        rig.kept.start_draining()
        assert rig.kept.tunnel.ended
        assert len(rig.services.registry) == 0

    client(scenario)


def test_a_server_at_another_address_than_the_dialled_one_is_one_of_several_perhaps(client):
    async def scenario(rig):
        await rig.say(address_frame(Endpoint("10.1.2.3", 80)), frame(0, FrameType.PING, bytes(8)))
        await rig.loop.sock_recv(rig.peer, 65536)
        assert rig.found == [rig.kept]
        assert rig.kept.server == Endpoint("10.1.2.3", 80)

    client(scenario)


def test_a_server_at_the_dialled_address_is_the_only_one(client):
    async def scenario(rig):
        await rig.say(address_frame(Endpoint("127.0.0.1", 9)), frame(0, FrameType.PING, bytes(8)))
        await rig.loop.sock_recv(rig.peer, 65536)
        assert rig.found == []
        assert rig.kept.server is None

    client(scenario)


def test_a_server_that_says_another_address_each_time_makes_us_dial_once_at_most(client):
    async def scenario(rig):
        await rig.say(*(address_frame(Endpoint(f"10.1.{number >> 8}.{number & 255}", 80)) for number in range(1000)))
        await rig.until(lambda: rig.kept.tunnel.ended)
        assert rig.found == [rig.kept]
        assert isinstance(rig.kept.take_failure(), TunnelViolation)

    client(scenario)
