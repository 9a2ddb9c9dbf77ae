"""A TLS connection to another sidecar, from connect to the end of the handshake, resumed where that is possible."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from pqtls import ClientConfig, ClientConnection
from proxy import sockets
from proxy.config import Direction, Endpoint
from proxy.credentials import Bundle
from proxy.phases import Services, secure
from proxy.record import ConnectionRecord
from proxy.tunnels.moving import Dialled


async def dial(
    services: Services,
    destination: Endpoint,
    bundle: Bundle,
    config: Callable[[Bundle], ClientConfig],
    *,
    sessions_of: Endpoint,
) -> tuple[Dialled, ConnectionRecord]:
    """Connect to `destination`; sessions are those of `sessions_of`. The record is that of a tunnel, and open.

    Raises PeerError, HandshakeFailed, ConnectFailed and OSError; then the record is abandoned.
    """
    key = (sessions_of, bundle.settings.accept_identity, bundle.credential.chain)
    keep = functools.partial(services.sessions.keep, key)
    wire = await sockets.connect(services.loop, destination, services.limits.connect_timeout)
    record = ConnectionRecord(
        services.sinks, Direction.OUTBOUND, sockets.own_name(wire), bundle.identity, services.profile
    )
    record.going_to(destination)
    record.becomes_tunnel()
    try:
        sessions = services.sessions.take(key, bundle.settings.now())
        connection = ClientConnection(dataclasses.replace(config(bundle), sessions=sessions))
        result = await secure(services, record, wire, connection)
    except BaseException:
        record.abandon()
        sockets.reset(wire)
        raise
    for session in result.sessions:
        keep(session)
    return Dialled(wire, connection, result, keep), record
