"""What a process gives its connections, with as much of it real as a test of tunnels can see."""

from __future__ import annotations

import asyncio

from mesh.modes import MTLSMode
from pqtls import ClientConnection, ServerConnection
from pqtls.events import HandshakeCompleted
from proxy.config import Limits
from proxy.credentials import utc_now
from proxy.engine import Scratch
from proxy.handshake_queue import HandshakeQueue
from proxy.metrics import Metrics
from proxy.phases import Services
from proxy.policy.config import PolicyConfig
from proxy.policy.gate import Gate
from proxy.reactor import Reactor
from proxy.record import Sinks
from proxy.registry import Registry
from proxy.sessions import SessionStore
from proxy.tunnels.buffers import TunnelBuffers
from proxy.tunnels.moving import Movable
from proxy.tunnels.pool import TunnelPool
from proxy.tunnels.shares import Shares
from proxy.unfinished import Unfinished


class Lines(list):
    """Stands where the access log does."""

    write = list.append

    def of(self, event: str) -> list[dict]:
        return [line for line in self if line["event"] == event]


class Source:
    """Credentials that a test replaces."""

    def __init__(self, bundle) -> None:
        self.current = bundle


def services_of(
    bundle, reactor: Reactor | None = None, limits: Limits | None = None, policy: PolicyConfig | None = None
) -> Services:
    """Services of a worker whose credentials are `bundle`."""
    loop = asyncio.get_running_loop()
    scratch = Scratch()
    limits = limits or Limits()
    sinks = Sinks(Metrics(), Lines(), utc_now)
    return Services(
        loop=loop,
        reactor=reactor or Reactor(loop),
        scratch=scratch,
        credentials=Source(bundle),
        sessions=SessionStore(),
        registry=Registry(),
        sinks=sinks,
        limits=limits,
        profile="qbitel",
        own_ports=frozenset(),
        unfinished=Unfinished(limits.max_handshakes),
        handshakes=HandshakeQueue(loop, lambda _length: None),
        buffers=TunnelBuffers(scratch),
        movable=Movable(),
        shares=Shares(limits.max_connections),
        gate=Gate(policy or PolicyConfig(), MTLSMode.STRICT, sinks),
        tunnels=TunnelPool(),
    )


def handshaken(pki):
    """(client, server, and what each says of the handshake that they have done)."""
    client = ClientConnection(pki.bundle("web").tunnel_client)
    server = ServerConnection(pki.bundle("api").server(True))
    while not (client.handshake_complete and server.handshake_complete):
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    completed = [event for end in (client, server) for event in end.events() if isinstance(event, HandshakeCompleted)]
    return client, server, *completed
