"""Outbound: from the application to the wire. accept → original destination → way → endpoint → relay, or a tunnel.

A destination that requires the mesh gets its TLS or nothing: there is no path from a failure to plaintext.
"""

from __future__ import annotations

import dataclasses
import functools
import socket
from typing import TYPE_CHECKING

from pqtls import ClientConnection
from proxy import sockets
from proxy.config import Direction, Endpoint, ListenerConfig
from proxy.original_destination import NoOriginalDestination
from proxy.peers.reaching import reach
from proxy.peers.router import Router, Way
from proxy.phases import Phases, Services, carry, destination_of, reset_unless_closed, secure
from proxy.reasons import Refused, Verdict
from proxy.record import ConnectionRecord
from proxy.registry import LiveConnection
from proxy.routes import Mode
from proxy.tunnels.client import ClientTunnel
from proxy.tunnels.moving import Dialled

if TYPE_CHECKING:
    from proxy.peers.passage import Passage


def outbound(listener: ListenerConfig, router: Router) -> Phases:
    """The phases of a connection that `listener` accepted."""
    return functools.partial(_outbound if listener.mesh_only else _to_any_server, listener, router)


async def _outbound(
    listener: ListenerConfig, router: Router, services: Services, application: socket.socket, live: LiveConnection
) -> Verdict | None:
    destination = destination_of(services, application, listener)
    live.record.going_to(destination)
    way = _way(router, listener, destination)
    if way.notes is not None:
        live.record.noted(way.notes)
    passage = _enter(way)
    try:
        found, address = await _reached(services, router, way, passage, live.record)
        if address is not way.destination:
            live.record.noted({"endpoint": str(address)})
        if isinstance(found, ClientTunnel):
            found.carry(application, live.record, address.port, passage)
            passage = None  # the stream's, from here on
            return None
        if isinstance(found, Dialled):
            with reset_unless_closed(found.wire) as wire:
                return await carry(
                    services, live, application, wire, found.connection,
                    first=found.result.first_plaintext, on_session=found.keep_session,
                )  # fmt: skip
        with reset_unless_closed(found) as wire:
            return await carry(services, live, application, wire, None)
    finally:
        if passage is not None:
            passage.leave()


async def _reached(
    services: Services, router: Router, way: Way, passage: Passage | None, record: ConnectionRecord
) -> tuple[ClientTunnel | Dialled | socket.socket, Endpoint]:
    """Reach the peer, as one of no more than so many that wait for that."""
    if way.group is None:
        return await reach(services, router, way, passage, record)
    way.group.begin_connecting()
    try:
        return await reach(services, router, way, passage, record)
    finally:
        way.group.end_connecting()


async def _to_any_server(
    listener: ListenerConfig, _router: Router, services: Services, application: socket.socket, live: LiveConnection
) -> Verdict | None:
    """To the listener's target, which need not be a sidecar of ours."""
    destination = destination_of(services, application, listener)
    live.record.going_to(destination)
    connected = await sockets.connect(services.waits, destination, services.limits.connect_timeout)
    with reset_unless_closed(connected) as wire:
        bundle = services.credentials.current
        key = (destination, bundle.settings.accept_identity, bundle.certificates_id)
        sessions = services.sessions.take(key, bundle.settings.now())
        asked = bundle.foreign_client
        if sessions:
            asked = dataclasses.replace(asked, sessions=sessions)
        connection = ClientConnection(asked)
        result = await secure(services, live.record, wire, connection, hold_last=True)
        keep = functools.partial(services.sessions.keep, key)
        for session in result.sessions:
            keep(session)
        return await carry(services, live, application, wire, connection, first=result.first_plaintext, on_session=keep)


def carry_at_once(
    listener: ListenerConfig, router: Router, services: Services, application: socket.socket, source: Endpoint
) -> bool:
    """Take over a connection that `source` dialled in this very turn, where a tunnel to its destination stands; else
    False.

    Everything else, and every reason not to, is for the phases.
    """
    tunnels = services.tunnels
    if tunnels is None or not listener.mesh_only or len(services.registry) >= services.limits.max_connections:
        return False
    try:
        destination = destination_of(services, application, listener)
    except (NoOriginalDestination, OSError):
        return False
    way = _way(router, listener, destination)
    if way.mode is Mode.OFF:
        return False
    via, address, member = way.via, destination, None
    group = way.group
    if group is not None and way.is_balanced:
        try:
            member = group.choose()
        except Refused:
            return False
        via, address = way.towards(member)
    kept = tunnels.warm(services, via)
    if kept is None:
        if group is not None and member is not None:
            group.put_back(member)
        return False
    try:
        passage = _enter(way)
    except Refused:
        if group is not None and member is not None:
            group.put_back(member)
        return False
    if passage is not None and member is not None:
        passage.uses(member)
    if way.mode is Mode.PREFER:
        router.memory.spoke_mesh(via.address, router.now())
    identity = services.credentials.current.identity
    record = ConnectionRecord(services.sinks, Direction.OUTBOUND, source, identity, services.profile)
    record.going_to(destination)
    if way.notes is not None:
        record.noted(way.notes if member is None else {**way.notes, "endpoint": str(address)})
    kept.carry(application, record, address.port, passage)
    return True


def _way(router: Router, listener: ListenerConfig, destination: Endpoint) -> Way:
    """What holds for the destination. A listener's own target is the other end of the mesh in any case."""
    return router.way(destination) if listener.target is None else router.way_to_target(destination)


def _enter(way: Way) -> Passage | None:
    """A place among the connections of the way, where they are counted. Raises Refused."""
    if way.group is None:
        return None
    from proxy.peers.passage import Passage  # noqa: PLC0415  # with the group, whoever has none does without

    return Passage(way.group)
