"""A connection in a tunnel is a connection: it has a record, it is in the registry, and it ends in both."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from proxy.config import Direction, Endpoint
from proxy.record import ConnectionRecord
from proxy.relay import End
from proxy.tunnels.carrying import Carried
from proxy.tunnels.frames import Opening, ResetCode, reset_frame
from proxy.tunnels.kept import KeptTunnel
from proxy.tunnels.tunnel import Tunnel
from tests.proxy.tunnels.services import handshaken, services_of


@pytest.fixture
def carried(run, tcp_pair, pki):
    """Run a scenario(services, application's end, the peer's end and engine) with one carried connection."""

    def go(scenario):
        async def main():
            services = services_of(pki.bundle("web"))
            wire, peer = tcp_pair()
            app, near = tcp_pair()
            engine, foreign, event, _ = handshaken(pki)
            tunnel_record = ConnectionRecord(services.sinks, Direction.OUTBOUND, Endpoint("a", 1), "-", "qbitel")
            tunnel_record.becomes_tunnel()
            kept = KeptTunnel(services, event, tunnel_record)
            kept.start(Tunnel(services.reactor, services.buffers, wire, engine, kept, is_client=True))
            record = ConnectionRecord(services.sinks, Direction.OUTBOUND, Endpoint("10.0.0.1", 5), "-", "qbitel")
            opening = Opening(Endpoint("10.0.0.2", 80), bytes(16))
            carried = Carried(kept, record, opening.connection_id)
            kept.tunnel.open(opening, lambda number: carried.stream(number, near, connecting=False))
            with contextlib.closing(services.reactor):
                await scenario(services, app, peer, foreign)
                if not kept.tunnel.ended:
                    kept.end()

        run(main())

    return go


def test_it_is_counted_while_it_lives_and_recorded_when_it_ends(carried):
    async def scenario(services, app, peer, foreign):
        loop = asyncio.get_running_loop()
        assert services.registry.connections == 1
        await loop.sock_sendall(app, b"12345")
        app.shutdown(socket.SHUT_WR)
        while b"12345" not in b"".join(getattr(event, "data", b"") for event in foreign.events()):
            foreign.receive_data(await loop.sock_recv(peer, 65536))
        foreign.send_data(reset_frame(1, ResetCode.DENIED))
        await loop.sock_sendall(peer, foreign.data_to_send())
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(app, 1)
        (line,) = services.sinks.access_log.of("connection")
        assert (line["flag"], line["reason"], line["bytes_received"]) == ("DENY", "denied_by_peer", 5)
        assert services.registry.connections == 0

    carried(scenario)


def test_it_is_swept_and_ended_like_any_other(carried):
    async def scenario(services, app, peer, foreign):
        now = services.loop.time()
        services.registry.sweep(now, 10)
        services.registry.sweep(now + 9, 10)
        assert services.registry.connections == 1
        services.registry.sweep(now + 10, 10)
        (line,) = services.sinks.access_log.of("connection")
        assert line["reason"] == "idle_timeout"

    carried(scenario)


def test_the_end_of_the_sidecar_resets_it(carried):
    async def scenario(services, app, peer, foreign):
        await services.registry.end_all()
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(app, 1)
        (line,) = services.sinks.access_log.of("connection")
        assert line["reason"] == "drained"
        assert End.DRAINED.value == "drained"

    carried(scenario)
