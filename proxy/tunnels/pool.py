"""The client's ends of tunnels: who has one to a destination, who waits for one, and when there should be another.

The first connection to a destination dials; others that come meanwhile wait for the same. Where the other sidecar knows
no tunnels, its connections are left to the caller, one TLS connection each.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
from typing import Final

from mesh import names
from pqtls.errors import PeerError
from proxy import sockets
from proxy.config import Endpoint
from proxy.handshake import HandshakeFailed
from proxy.phases import Services
from proxy.tunnels.client import ClientTunnel, Single
from proxy.tunnels.dialling import dial

# A destination that is busy gets so many tunnels at most, another one when all it has carry so many streams. One tunnel
# is one core on the other side and one pod of a Service; each costs a handshake.
MAX_TUNNELS: Final = 4
STREAMS_EACH: Final = 32
# Destinations whose sidecars know no tunnels: remembered for so long, and so many.
_SINGLE_SECONDS: Final = 300.0
_MOST_SINGLE: Final = 1024

_log = logging.getLogger("qbitel.proxy")


class _Place:
    """What there is for one destination."""

    __slots__ = ("dialling", "tunnels")

    def __init__(self) -> None:
        self.tunnels: list[ClientTunnel] = []
        self.dialling: asyncio.Future[ClientTunnel | None] | None = None


class TunnelPool:
    """The tunnels of one process, by destination as the application dials it."""

    def __init__(self) -> None:
        self._places: dict[Endpoint, _Place] = {}
        self._single: collections.OrderedDict[Endpoint, float] = collections.OrderedDict()
        self._background: set[asyncio.Task[None]] = set()

    def warm(self, services: Services, destination: Endpoint) -> ClientTunnel | None:
        """The tunnel that a new connection to `destination` goes into, if one stands. A busy one gets company."""
        place = self._places.get(destination)
        if place is None:
            return None
        best: ClientTunnel | None = None
        for kept in place.tunnels:
            if kept.takes_streams and (best is None or len(kept.tunnel.streams) < len(best.tunnel.streams)):
                best = kept
        if best is not None and len(best.tunnel.streams) >= STREAMS_EACH and len(place.tunnels) < MAX_TUNNELS:
            self._dial_beside(services, destination, place)
        return best

    async def obtain(self, services: Services, destination: Endpoint) -> ClientTunnel | Single | None:
        """A tunnel to `destination`, dialled where there is none; None: the other sidecar knows none.

        Whoever finds that out gets the connection that it was found out with. Raises what connecting and the handshake
        raise.
        """
        if self._single.get(destination, 0.0) > services.loop.time():
            return None
        while (kept := self.warm(services, destination)) is None:
            place = self._places.setdefault(destination, _Place())
            if place.dialling is None:
                return await self._dial(services, destination, place)
            if await asyncio.shield(place.dialling) is None:
                return None
        return kept

    async def _dial(self, services: Services, destination: Endpoint, place: _Place) -> ClientTunnel | Single:
        """Dial, for all who wait meanwhile too."""
        dialling = place.dialling = services.loop.create_future()
        dialling.add_done_callback(_look_at)
        try:
            made = await self._connect(services, destination, place)
        except BaseException as error:
            given_up = isinstance(error, asyncio.CancelledError)
            dialling.set_exception(sockets.ConnectFailed("the sidecar ends") if given_up else error)
            raise
        finally:
            place.dialling = None
            self._forget_empty(destination, place)
        dialling.set_result(made if isinstance(made, ClientTunnel) else None)
        return made

    async def _connect(self, services: Services, destination: Endpoint, place: _Place) -> ClientTunnel | Single:
        bundle = services.credentials.current
        dialled, record = await dial(
            services, destination, bundle, lambda bundle: bundle.tunnel_client, sessions_of=destination
        )
        if dialled.result.event.alpn != names.ALPN_TUNNEL:
            record.abandon()
            self._remember_single(destination, services.loop.time())
            return Single(dialled)
        kept = ClientTunnel(
            services,
            dialled,
            record,
            bundle=bundle,
            destination=destination,
            leave=functools.partial(self._left, destination, place),
        )
        self._places[destination] = place
        place.tunnels.append(kept)
        kept.begin()
        if kept.tunnel.ended:  # refused by what came with the handshake's end
            raise kept.failure or HandshakeFailed("the other sidecar closed the tunnel at once", "handshake_reset")
        return kept

    def _dial_beside(self, services: Services, destination: Endpoint, place: _Place) -> None:
        """Another tunnel, for connections to come. Where that fails, the ones that are there go on."""
        if place.dialling is None:
            task = services.loop.create_task(self._try_to_dial(services, destination, place))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _try_to_dial(self, services: Services, destination: Endpoint, place: _Place) -> None:
        try:
            made = await self._dial(services, destination, place)
            if isinstance(made, Single):  # another sidecar has taken the place of the one that knew tunnels
                sockets.reset(made.dialled.wire)
        except (PeerError, HandshakeFailed, sockets.ConnectFailed, OSError) as error:
            _log.info("another tunnel to %s could not be had: %s", destination, error)

    # -- bookkeeping --------------------------------------------------------------------------------------------

    def _left(self, destination: Endpoint, place: _Place, kept: ClientTunnel) -> None:
        """`kept` takes no more streams."""
        place.tunnels.remove(kept)
        self._forget_empty(destination, place)

    def _forget_empty(self, destination: Endpoint, place: _Place) -> None:
        if not place.tunnels and place.dialling is None and self._places.get(destination) is place:
            del self._places[destination]

    def _remember_single(self, destination: Endpoint, now: float) -> None:
        self._single[destination] = now + _SINGLE_SECONDS
        self._single.move_to_end(destination)
        if len(self._single) > _MOST_SINGLE:
            self._single.popitem(last=False)


def _look_at(dialling: asyncio.Future[ClientTunnel | None]) -> None:
    """Nobody may have waited for it: then its error was told to whoever dialled."""
    if not dialling.cancelled():
        dialling.exception()
