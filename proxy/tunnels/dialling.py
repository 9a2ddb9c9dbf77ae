"""A TLS connection to another sidecar, from connect to the end of the handshake, resumed where that is possible."""

from __future__ import annotations

import dataclasses
import functools
import socket
from collections.abc import Callable

from pqtls import ClientConfig, ClientConnection
from proxy import sockets
from proxy.config import Direction, Endpoint
from proxy.credentials import Bundle
from proxy.peers.via import Via
from proxy.phases import Services, secure
from proxy.record import ConnectionRecord
from proxy.tunnels.moving import Dialled


async def dial(
    services: Services,
    via: Via,
    bundle: Bundle,
    config: Callable[[Bundle], ClientConfig],
    *,
    to: Endpoint | None = None,
    timeout: float | None = None,
) -> tuple[Dialled, ConnectionRecord]:
    """Make a connection that is no application's: the record is that of a tunnel, and open.

    `to` is the address, where that is not `via`'s; `timeout` (seconds) is the one for connecting, None: the sidecar's.
    Raises PeerError, HandshakeFailed, ConnectFailed and OSError; then the record is abandoned.
    """
    wire = await sockets.connect(services.waits, to or via.address, timeout or services.limits.connect_timeout)
    record = ConnectionRecord(
        services.sinks, Direction.OUTBOUND, sockets.own_name(wire), bundle.identity, services.profile
    )
    record.going_to(to or via.address)
    record.becomes_tunnel()
    try:
        return await _secured(services, via, bundle, config(bundle), record, wire), record
    except BaseException:
        record.abandon()
        raise


async def dial_single(
    services: Services, via: Via, record: ConnectionRecord, *, timeout: float | None = None
) -> Dialled:
    """Make a connection for one application's, whose `record` this is, and whose relay begins at once: it sends what
    is left of the handshake. Raises as `dial`.
    """
    bundle = services.credentials.current
    wire = await sockets.connect(services.waits, via.address, timeout or services.limits.connect_timeout)
    return await _secured(services, via, bundle, bundle.mesh_client, record, wire, hold_last=True)


async def _secured(
    services: Services,
    via: Via,
    bundle: Bundle,
    config: ClientConfig,
    record: ConnectionRecord,
    wire: socket.socket,
    *,
    hold_last: bool = False,
) -> Dialled:
    rule = bundle.settings.accept_identity
    key = (*via.sessions_key(rule), bundle.certificates_id)
    keep = functools.partial(services.sessions.keep, key)
    try:
        sessions = services.sessions.take(key, bundle.settings.now())
        asked = via.configured(config, rule)
        if sessions:  # else one configuration does for all
            asked = dataclasses.replace(asked, sessions=sessions)
        connection = ClientConnection(asked)
        result = await secure(services, record, wire, connection, hold_last=hold_last)
    except BaseException:
        sockets.reset(wire)
        raise
    for session in result.sessions:
        keep(session)
    return Dialled(wire, connection, result, keep)
