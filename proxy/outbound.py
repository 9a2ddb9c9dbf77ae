"""Outbound: from the application to the wire. accept → original destination → route → connect → handshake → relay.

A destination in the mesh gets TLS of the mesh or nothing: there is no path from a failure to plaintext.
"""

from __future__ import annotations

import dataclasses
import functools
import socket

from pqtls import ClientConnection
from proxy import sockets
from proxy.config import Direction, ListenerConfig
from proxy.original_destination import NoOriginalDestination
from proxy.phases import Phases, Services, carry, destination_of, reset_unless_closed, secure
from proxy.reasons import Verdict
from proxy.record import ConnectionRecord
from proxy.registry import LiveConnection
from proxy.routes import Route, RouteTable
from proxy.tunnels.client import ClientTunnel


def outbound(listener: ListenerConfig, routes: RouteTable) -> Phases:
    """The phases of a connection that `listener` accepted."""
    return functools.partial(_outbound, listener, routes)


async def _outbound(
    listener: ListenerConfig,
    routes: RouteTable,
    services: Services,
    application: socket.socket,
    live: LiveConnection,
) -> Verdict | None:
    destination = destination_of(services, application, listener)
    live.record.going_to(destination)
    # A target that was given by name or address is the other end of the mesh: that is what the listener is for.
    route = Route.MESH if listener.target is not None else routes.route(destination.host)
    if services.tunnels is not None and listener.mesh_only and route is Route.MESH:
        found = await services.tunnels.obtain(services, destination)
        if isinstance(found, ClientTunnel):
            found.carry(application, live.record)
            return None
        if found is not None:
            dialled = found.dialled
            live.record.secured(dialled.result.event)
            with reset_unless_closed(dialled.wire) as wire:
                return await carry(
                    services, live, application, wire, dialled.connection,
                    first=dialled.result.first_plaintext, on_session=dialled.keep_session,
                )  # fmt: skip
    connected = await sockets.connect(services.loop, destination, services.limits.connect_timeout)
    with reset_unless_closed(connected) as wire:
        if route is Route.PASSTHROUGH:
            return await carry(services, live, application, wire, None)
        bundle = services.credentials.current
        key = (destination, bundle.settings.accept_identity, bundle.credential.chain)
        sessions = services.sessions.take(key, bundle.settings.now())
        connection = ClientConnection(dataclasses.replace(bundle.client(listener.mesh_only), sessions=sessions))
        result = await secure(services, live.record, wire, connection)
        keep = functools.partial(services.sessions.keep, key)
        for session in result.sessions:
            keep(session)
        return await carry(services, live, application, wire, connection, first=result.first_plaintext, on_session=keep)


def carry_at_once(listener: ListenerConfig, routes: RouteTable, services: Services, application: socket.socket) -> bool:
    """Take over an accepted connection in this very turn, where a tunnel to its destination stands; else False.

    Everything else, and every reason not to, is for the phases.
    """
    if services.tunnels is None or not listener.mesh_only or len(services.registry) >= services.limits.max_connections:
        return False
    try:
        destination = destination_of(services, application, listener)
        source = sockets.peer_name(application)
    except (NoOriginalDestination, OSError):
        return False
    if listener.target is None and routes.route(destination.host) is not Route.MESH:
        return False
    kept = services.tunnels.warm(services, destination)
    if kept is None:
        return False
    identity = services.credentials.current.identity
    record = ConnectionRecord(services.sinks, Direction.OUTBOUND, source, identity, services.profile)
    record.going_to(destination)
    kept.carry(application, record)
    return True
