"""From connect to a finished handshake: what stands afterwards, and what is left of a failure."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mesh.names import ALPN_TUNNEL
from pqtls import ServerConnection
from pqtls.errors import PeerError
from proxy.config import Endpoint
from proxy.peers.via import Via
from proxy.sockets import ConnectFailed
from proxy.tunnels.dialling import dial
from tests.proxy.tunnels.services import services_of


@pytest.fixture
def dialled(run, pki):
    """Dial a server with these certificates: what that gave, and the services that it was done with."""

    def go(certs: str, via=Via):
        async def main():
            services = services_of(pki.bundle("web"))
            loop = asyncio.get_running_loop()
            config = pki.bundle(certs).server(True)
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                listener.setblocking(False)
                where = Endpoint(*listener.getsockname())

                async def serve():
                    accepted, _ = await loop.sock_accept(listener)
                    with accepted:
                        server = ServerConnection(config)
                        while not server.handshake_complete:
                            try:
                                server.receive_data(await loop.sock_recv(accepted, 65536))
                            finally:
                                await loop.sock_sendall(accepted, server.data_to_send())
                        await loop.sock_recv(accepted, 1)

                serving = loop.create_task(serve())
                bundle = services.credentials.current
                try:
                    made, record = await dial(services, via(where), bundle, lambda bundle: bundle.tunnel_client)
                except PeerError as error:
                    found = error
                else:
                    found = made.result.event
                    made.wire.close()
                    record.abandon()
                await asyncio.gather(serving, return_exceptions=True)
            services.reactor.close()
            return found, services

        return run(main())

    return go


def test_the_handshake_is_recorded_and_the_protocol_is_the_tunnels(dialled):
    event, services = dialled("api")
    assert event.alpn == ALPN_TUNNEL
    assert [line["event"] for line in services.sinks.access_log] == ["handshake"]


def test_a_server_that_is_not_who_it_should_be_is_refused_and_leaves_no_record_open(dialled):
    error, services = dialled("other_root")
    assert error.reason == "unknown_root"
    assert services.sinks.access_log == []


def test_a_peer_with_another_identity_than_the_one_pinned_is_refused(dialled, pki):
    error, services = dialled("api", lambda where: Via(where, frozenset({pki.identity("web")})))
    assert error.reason == "unexpected_identity"
    assert f"is {pki.identity('api')}, and the peers document expects {pki.identity('web')}" in str(error)
    assert len(services.sessions) == 0


def test_a_peer_with_the_identity_that_is_pinned_is_taken(dialled, pki):
    event, _ = dialled("api", lambda where: Via(where, frozenset({pki.identity("api")}), "qbitel"))
    assert event.peer_identity == pki.identity("api")


def test_nobody_there_is_said_in_words(run, pki):
    async def main():
        services = services_of(pki.bundle("web"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = Endpoint(*free.getsockname())
        with pytest.raises(ConnectFailed, match="connection refused"):
            await dial(services, Via(where), services.credentials.current, lambda bundle: bundle.tunnel_client)
        services.reactor.close()

    run(main())
