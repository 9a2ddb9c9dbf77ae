"""Outbound: from the application to the wire. accept → original destination → route → connect → handshake → relay.

A destination in the mesh gets TLS of the mesh or nothing: there is no path from a failure to plaintext.
"""

from __future__ import annotations

import dataclasses
import functools
import socket

from pqtls import ClientConnection
from proxy import sockets
from proxy.config import ListenerConfig
from proxy.phases import Phases, Services, carry, destination_of, reset_unless_closed, secure
from proxy.reasons import Verdict
from proxy.registry import LiveConnection
from proxy.routes import Route, RouteTable


def outbound(listener: ListenerConfig, routes: RouteTable) -> Phases:
    """The phases of a connection that `listener` accepted."""
    return functools.partial(_outbound, listener, routes)


async def _outbound(
    listener: ListenerConfig,
    routes: RouteTable,
    services: Services,
    application: socket.socket,
    live: LiveConnection,
) -> Verdict:
    destination = destination_of(services, application, listener)
    live.record.going_to(destination)
    # A target that was given by name or address is the other end of the mesh: that is what the listener is for.
    route = Route.MESH if listener.target is not None else routes.route(destination.host)
    connected = await sockets.connect(services.loop, destination, services.limits.connect_timeout)
    with reset_unless_closed(connected) as wire:
        if route is Route.PASSTHROUGH:
            return await carry(services, live, application, wire, None)
        bundle = services.credentials.current
        key = (destination, bundle.settings.accept_identity, bundle.credential.chain)
        sessions = services.sessions.take(key, bundle.settings.now())
        connection = ClientConnection(dataclasses.replace(bundle.client(listener.mesh_only), sessions=sessions))
        result = await secure(services, live, wire, connection)
        keep = functools.partial(services.sessions.keep, key)
        for session in result.sessions:
            keep(session)
        return await carry(services, live, application, wire, connection, first=result.first_plaintext, on_session=keep)
