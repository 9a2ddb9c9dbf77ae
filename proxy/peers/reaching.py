"""From a way to a connection: an endpoint is chosen and reached as the mode allows, or another one is tried.

Nothing of the application has been read before this returns, so that trying again loses and repeats nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final

from pqtls.errors import PeerError
from proxy import sockets
from proxy.config import Endpoint
from proxy.handshake import HandshakeFailed, connection_id
from proxy.peers.evidence import evidence_in
from proxy.peers.router import Router, Way
from proxy.peers.via import Via
from proxy.phases import Services
from proxy.reasons import Flag, Refused
from proxy.record import ConnectionRecord
from proxy.routes import Mode
from proxy.tunnels.client import ClientTunnel
from proxy.tunnels.dialling import dial_single
from proxy.tunnels.moving import Dialled

if TYPE_CHECKING:
    from mesh.balancing import Endpoint as Member
    from proxy.peers.passage import Passage

# What making a connection raises, and what another endpoint may do better.
_FAILURES: Final = (PeerError, HandshakeFailed, sockets.ConnectFailed, OSError)

_log = logging.getLogger("qbitel.proxy")


class Withheld(Refused):
    """Mode prefer: it could have gone as plaintext, and there is something against it."""


async def reach(
    services: Services, router: Router, way: Way, passage: Passage | None, record: ConnectionRecord
) -> tuple[ClientTunnel | Dialled | socket.socket, Endpoint]:
    """A tunnel, a TLS connection or a plain one (mode off or prefer alone), and the application's address behind it.

    Raises Refused, PeerError, HandshakeFailed, ConnectFailed and OSError: those of the last attempt.
    """
    group = way.group
    tried: list[Member] = []
    attempt = 0
    while True:
        attempt += 1
        member = None
        if group is not None and passage is not None and way.is_balanced:
            member = group.choose(tried)
        if group is not None and attempt > 1 and (member is None or member in tried):
            await asyncio.sleep(group.pause(attempt - 1))
        if member is not None and passage is not None:
            passage.uses(member)
            tried.append(member)
        via, address = way.towards(member)
        try:
            found = await _reach(services, router, way, via, address, record)
        except (*_FAILURES, Withheld) as error:
            if passage is not None:
                passage.failed(str(error))
            if group is None or not group.may_retry(attempt):
                raise
            _log.debug("%s of %s could not be reached and is tried again: %s", address, way.name, error)
        else:
            if passage is not None and not isinstance(found, ClientTunnel):  # there the application's answer counts
                passage.succeeded()
            return found, address


async def _reach(
    services: Services, router: Router, way: Way, via: Via, address: Endpoint, record: ConnectionRecord
) -> ClientTunnel | Dialled | socket.socket:
    if way.mode is Mode.OFF:
        return await _plain(services, router, way, address)
    if way.mode is Mode.REQUIRE:
        found = await _by_mesh(services, way, via, record)
        router.memory.spoke_mesh(via.address, router.now())  # for the day when a document prefers
        return found
    if (shown := router.memory.why_plaintext(via.address, router.now())) is not None:
        return await _fall_back(services, router, way, address, record, shown)
    try:
        found = await _by_mesh(services, way, via, record)
    except _FAILURES as error:
        shown = evidence_in(error, at_tunnel_port=via.by_stream)
        if shown is None:
            raise
        _insist(router, way, via, error)
        if router.memory.why_plaintext(via.address, router.now()) is None:  # of many at once, one says it
            router.memory.spoke_plaintext(via.address, shown, router.now())
            _log.warning(
                "%s of %s speaks no TLS of the mesh (%s: %s): connections go there as PLAINTEXT, as mode prefer allows",
                via, way.name, shown, error,
            )  # fmt: skip
        return await _fall_back(services, router, way, address, record, shown)
    router.memory.spoke_mesh(via.address, router.now())
    return found


def _insist(router: Router, way: Way, via: Via, error: Exception) -> None:
    """Raise Withheld where the destination has spoken the mesh's TLS so lately that this looks like an attack."""
    since = router.memory.since_mesh(via.address, router.now())
    if since is None:
        return
    router.metrics.withheld(way.name)
    raise Withheld(
        Flag.TLS_FAILURE,
        "fallback_withheld",
        f"{str(error).rstrip('.')}. Plaintext would be the way out in mode prefer, but it spoke the mesh's TLS "
        f"{since:.0f} s ago: somebody may want just that. If its sidecar was removed, wait a quarter of an hour or set "
        "mode off.",
    ) from error


async def _fall_back(
    services: Services, router: Router, way: Way, address: Endpoint, record: ConnectionRecord, shown: str
) -> socket.socket:
    router.metrics.fell_back(way.name, shown)
    record.noted({"fallback": shown})
    return await _plain(services, router, way, address)


async def _plain(services: Services, router: Router, way: Way, address: Endpoint) -> socket.socket:
    sock = await sockets.connect(services.waits, address, way.connect_timeout or services.limits.connect_timeout)
    # All this took its time, and nothing of the application has been sent yet: what is in force now counts.
    if router.way(way.destination).mode is Mode.REQUIRE:
        sock.close()
        raise Withheld(
            Flag.TLS_FAILURE,
            "fallback_withheld",
            f"{way.destination} was to be dialled as plaintext, and the peers document has come to require the mesh "
            "there meanwhile: dial again.",
        )
    return sock


async def _by_mesh(services: Services, way: Way, via: Via, record: ConnectionRecord) -> ClientTunnel | Dialled:
    """There is no way out of here but TLS of the mesh, or an exception."""
    if services.tunnels is not None:
        found = await services.tunnels.obtain(services, via, way.connect_timeout)
        if isinstance(found, ClientTunnel):
            return found
        if found is not None:
            record.identified_as(connection_id(found.dialled.connection))
            record.secured(found.dialled.result.event)
            return found.dialled
    return await dial_single(services, via, record, timeout=way.connect_timeout)
