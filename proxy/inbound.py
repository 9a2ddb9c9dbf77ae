"""Inbound: from the wire to the application. accept → sniff → handshake → identify → connect → relay.

The peer's identity is settled in the handshake, before the application hears of the connection at all.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from typing import Final

from mesh import names
from mesh.modes import MTLSMode
from pqtls import Alert, ServerConnection
from pqtls.errors import PeerError
from pqtls.events import HandshakeCompleted
from proxy import reasons, sockets, transparent
from proxy.config import Endpoint, ListenerConfig
from proxy.handshake import HandshakeResult
from proxy.phases import Phases, Services, carry, destination_of, reset_unless_closed, secure
from proxy.policy.gate import facts_of
from proxy.reasons import Flag, Refused, Verdict
from proxy.registry import LiveConnection
from proxy.sniff import Verdict as Sniffed
from proxy.sniff import sniff
from proxy.transparent import ClientAddress
from proxy.tunnels import moving
from proxy.tunnels.by_stream import ByStream, refuse_single
from proxy.tunnels.serving import ServedTunnel
from proxy.tunnels.tunnel import Tunnel

_OUR_PROTOCOLS: Final = frozenset({names.ALPN_STREAM, names.ALPN_TUNNEL, names.ALPN_MOVE})
# How long whoever is turned away gets to read why: a slow round trip or two.
_ALERT_SECONDS: Final = 1.0
# What the access log calls what came.
_SPOKEN: Final = {
    Sniffed.OUR_TLS: "mesh",
    Sniffed.OTHER_TLS: "foreign_tls",
    Sniffed.NOT_TLS: "plaintext",
    Sniffed.NEED_MORE: "plaintext",
}
_READ_SIZE: Final = 16 * 1024  # a mesh ClientHello has some 2 KB; this takes it in one read


def inbound(listener: ListenerConfig) -> Phases:
    """The phases of a connection that `listener` accepted."""
    return functools.partial(_inbound, listener)


async def _inbound(
    listener: ListenerConfig, services: Services, wire: socket.socket, live: LiveConnection
) -> Verdict | None:
    destination = sockets.own_name(wire) if listener.by_stream else destination_of(services, wire, listener)
    live.record.going_to(destination)
    if listener.by_stream or not listener.mesh_only:
        return await _through_tls(listener, services, wire, live, destination, b"")
    mode = services.gate.mode(destination.port)
    if mode is MTLSMode.DISABLE:
        live.record.received_as("bytes")
        return await _as_it_came(listener, services, wire, live, destination, b"")
    spoken, first = await _first_bytes(services, wire, live.record.source.host, mode, destination.port)
    live.record.received_as(_SPOKEN[spoken] if first else "silent")
    if spoken is Sniffed.OUR_TLS:
        return await _through_tls(listener, services, wire, live, destination, first)
    if mode is MTLSMode.PERMISSIVE:
        return await _as_it_came(listener, services, wire, live, destination, first)
    return await _refuse(listener, services, wire, live, spoken, first)


async def _first_bytes(
    services: Services, wire: socket.socket, source: str, mode: MTLSMode, port: int
) -> tuple[Sniffed, bytes]:
    """Read until it is clear what the client speaks; return that and what was read.

    A silent client is an ordinary one where plaintext is welcome: in many protocols the server speaks first.
    """
    limits, waits = services.limits, services.waits
    permissive = mode is MTLSMode.PERMISSIVE
    if not permissive:
        patience = limits.first_bytes_timeout
    else:
        patience = limits.server_first_timeout if services.gate.is_server_first(port) else limits.peek_timeout
    first = b""
    try:
        with services.unfinished.place(source):
            with waits.at_most(patience):
                first = await waits.receive(wire, _READ_SIZE)
            if not first:
                return Sniffed.NOT_TLS, first
            spoken = sniff(first, _OUR_PROTOCOLS)
            if spoken is Sniffed.NEED_MORE:
                # Now that it has begun, it gets the full time to finish its hello.
                with waits.at_most(limits.first_bytes_timeout):
                    while spoken is Sniffed.NEED_MORE:
                        data = await waits.receive(wire, _READ_SIZE)
                        if not data:
                            return Sniffed.NOT_TLS, first
                        first += data
                        spoken = sniff(first, _OUR_PROTOCOLS)
    except TimeoutError:
        if permissive:
            return Sniffed.NOT_TLS, first
        raise Refused(
            Flag.TIMEOUT,
            "first_bytes_timeout",
            f"no complete ClientHello came within {limits.first_bytes_timeout:g} s: the client is silent, or waits for "
            "the server to speak first in plaintext. Give it a sidecar, or make this port PERMISSIVE (a "
            "PeerAuthentication, or --mode).",
        ) from None
    return spoken, first


async def _refuse(
    listener: ListenerConfig,
    services: Services,
    wire: socket.socket,
    live: LiveConnection,
    spoken: Sniffed,
    first: bytes,
) -> Verdict:
    """STRICT, and it is not the mesh that called."""
    if not first:
        return reasons.CLOSED_EARLY
    if spoken is Sniffed.NOT_TLS:
        raise Refused(
            Flag.DENY,
            "plaintext_refused",
            "it sent plaintext, and this workload takes only mutual TLS of the mesh (STRICT). "
            "Give the client a sidecar, or make this port PERMISSIVE (a PeerAuthentication, or --mode).",
        )
    # The engine finds the alert that fits: protocol_version, no_application_protocol, …
    connection = ServerConnection(services.credentials.current.server(listener.mesh_only))
    try:
        await secure(services, live.record, wire, connection, first=first)
    except PeerError as error:
        raise Refused(
            Flag.DENY,
            "foreign_tls",
            f"its TLS is not the mesh's ({error}), and this workload takes no other (STRICT). "
            "Give the client a sidecar, or make this port PERMISSIVE (a PeerAuthentication, or --mode).",
        ) from error
    raise Refused(Flag.DENY, "foreign_tls", "its ClientHello did not offer the mesh's protocol in a form known here.")


async def _through_tls(
    listener: ListenerConfig,
    services: Services,
    wire: socket.socket,
    live: LiveConnection,
    destination: Endpoint,
    first: bytes,
) -> Verdict | None:
    connection = ServerConnection(services.credentials.current.server(listener.mesh_only))
    result = await secure(services, live.record, wire, connection, first=first)
    if result.event.alpn == names.ALPN_TUNNEL:
        await _become_tunnel(listener, services, wire, live, destination, connection, result)
        return None
    if result.event.alpn == names.ALPN_MOVE:
        return await _move(services, wire, live, connection, result)
    if listener.by_stream:
        raise refuse_single()
    try:
        dialled = await _admitted(listener, services, live, destination, result.event)
    except Refused as refused:
        await _tell_refused(services, wire, connection, refused)
        raise
    with reset_unless_closed(dialled) as application:
        return await carry(services, live, application, wire, connection, first=result.first_plaintext)


async def _tell_refused(
    services: Services, wire: socket.socket, connection: ServerConnection, refused: Refused
) -> None:
    """Who is not let in by a policy hears that from TLS (access_denied, RFC 8446 §6.2). Limits have no alert: RST."""
    if refused.verdict.flag is not Flag.DENY:
        return
    connection.abort(Alert.ACCESS_DENIED)
    with contextlib.suppress(OSError):  # it is gone already, and refused all the same
        await services.waits.send_all(wire, connection.data_to_send())
    await sockets.close_after_alert(services.waits, wire, _ALERT_SECONDS)


async def _become_tunnel(
    listener: ListenerConfig,
    services: Services,
    wire: socket.socket,
    live: LiveConnection,
    destination: Endpoint,
    connection: ServerConnection,
    result: HandshakeResult,
) -> None:
    """Hand the connection over: its streams go to where it was going itself, or where each of them says."""
    application = await sockets.address_of(services.loop, destination)
    peer = live.record.source
    live.record.becomes_tunnel()
    kept = ServedTunnel(
        services, result.event, live.record, peer=peer, application=application,
        source=_source(listener, application, peer.host),
        by_stream=ByStream(application, services.own_ports) if listener.by_stream else None,
    )  # fmt: skip
    reachable = sockets.own_name(wire) if listener.target is not None else destination
    kept.start(
        Tunnel(services.reactor, services.buffers, wire, connection, kept, is_client=False), result.first_plaintext
    )
    kept.tunnel.say_address(reachable)


async def _move(
    services: Services, wire: socket.socket, live: LiveConnection, connection: ServerConnection, result: HandshakeResult
) -> Verdict | None:
    """A stream of a tunnel wants to go on in this connection."""
    try:
        with services.unfinished.place(live.record.source.host):
            found = await moving.answer(services, services.movable, wire, connection, result)
    except TimeoutError:
        raise Refused(
            Flag.TIMEOUT, "first_bytes_timeout", "it does not say which connection is to move to it"
        ) from None
    if found:
        live.record.becomes_tunnel()
        live.record.abandon()  # its bytes are in the record of the connection that moves
        return None
    await sockets.close_after_alert(services.waits, wire, _ALERT_SECONDS)
    return reasons.MOVED_NOTHING


async def _as_it_came(
    listener: ListenerConfig,
    services: Services,
    wire: socket.socket,
    live: LiveConnection,
    destination: Endpoint,
    first: bytes,
) -> Verdict:
    dialled = await _admitted(listener, services, live, destination, None)
    with reset_unless_closed(dialled) as application:
        services.gate.plaintext_peers.passed(live.record.source.host, destination.port, live.record.what_came)
        return await carry(services, live, application, wire, None, first=first)


async def _admitted(
    listener: ListenerConfig,
    services: Services,
    live: LiveConnection,
    destination: Endpoint,
    event: HandshakeCompleted | None,
) -> socket.socket:
    """Ask at the gate, then connect to the application. Raises Refused and ConnectFailed."""
    facts = facts_of(live.record.source, destination, event)
    live.standing = services.gate.admit(facts, live.record, is_secure=event is not None)
    application = await _dial_application(listener, services, destination, live.record.source.host)
    if live.standing is not None:
        try:  # whoever was dialling when the rules changed was not asked about with those that were open
            services.gate.admit_again(live.standing, live.record)
        except Refused:
            sockets.reset(application)
            raise
    return application


async def _dial_application(
    listener: ListenerConfig, services: Services, destination: Endpoint, client: str
) -> socket.socket:
    """Connect to the application; behind interception, from an address that its rules let through."""
    source = _source(listener, destination, client)
    return await sockets.connect(services.waits, destination, services.limits.connect_timeout, source=source)


def _source(listener: ListenerConfig, destination: Endpoint, client: str) -> str | None:
    """The address to dial the application from: behind interception, the one that its rules let through, or, where
    they let that through, the client's.
    """
    if listener.target is not None:
        return None
    if listener.transparent and transparent.can_dial_as(client):
        return ClientAddress(client)
    return names.INBOUND_SOURCE_V6 if ":" in destination.host else names.INBOUND_SOURCE_V4
