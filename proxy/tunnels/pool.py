"""The client's ends of tunnels: who has one to a peer, who waits for one, and when there should be another.

The first connection to a peer dials; others that come meanwhile wait for the same. Where the other sidecar knows no
tunnels, its connections are left to the caller, one TLS connection each. A tunnel in use that is about to take no more
streams is replaced before it is given up, so that no application waits for a handshake.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
from collections.abc import Coroutine
from typing import Any, Final

from mesh import names
from pqtls.errors import PeerError
from proxy import sockets
from proxy.handshake import HandshakeFailed
from proxy.peers.via import Via
from proxy.phases import Services
from proxy.tunnels.client import ClientTunnel, Single
from proxy.tunnels.dialling import dial
from proxy.tunnels.servers import PAUSE_SECONDS, Servers

# A destination that is busy gets so many tunnels at most, another one when all it has carry so many streams. One tunnel
# is one core on the other side and one pod of a Service; each costs a handshake.
MAX_TUNNELS: Final = 4
STREAMS_EACH: Final = 128
# Peers whose sidecars know no tunnels: remembered for so long, and so many.
_SINGLE_SECONDS: Final = 300.0
_MOST_SINGLE: Final = 1024

_log = logging.getLogger("qbitel.proxy")


class _Place:
    """What there is for one peer."""

    __slots__ = ("dialling", "next_look", "servers", "timeout", "tunnels", "turn")

    def __init__(self) -> None:
        self.tunnels: list[ClientTunnel] = []
        self.dialling: asyncio.Future[ClientTunnel | None] | None = None
        self.servers = Servers()
        self.next_look: asyncio.TimerHandle | None = None  # for servers that are not known yet
        self.turn = 0
        self.timeout: float | None = None  # for connecting, as whoever asked last wanted it


class TunnelPool:
    """The tunnels of one process, by what they were made for: an address, and who may be there."""

    def __init__(self) -> None:
        self._places: dict[Via, _Place] = {}
        self._single: collections.OrderedDict[Via, float] = collections.OrderedDict()
        self._background: set[asyncio.Task[None]] = set()

    def warm(self, services: Services, via: Via) -> ClientTunnel | None:
        """The tunnel that a new connection to `via` goes into, if one stands. A busy one gets company."""
        place = self._places.get(via)
        if place is None:
            return None
        best: ClientTunnel | None = None
        # Each begins with another: where none carries more than the others, they take turns.
        place.turn += 1
        for number in range(len(place.tunnels)):
            kept = place.tunnels[(place.turn + number) % len(place.tunnels)]
            if kept.takes_streams and (best is None or len(kept.tunnel.streams) < len(best.tunnel.streams)):
                best = kept
        if best is not None and len(best.tunnel.streams) >= STREAMS_EACH and len(place.tunnels) < MAX_TUNNELS:
            self._dial_beside(services, via, place)
        return best

    async def obtain(self, services: Services, via: Via, timeout: float | None = None) -> ClientTunnel | Single | None:
        """A tunnel to `via`, dialled where there is none; None: the other sidecar knows none.

        Whoever finds that out gets the connection that it was found out with. `timeout` (seconds) is for connecting;
        None: the sidecar's. Raises what connecting and the handshake raise.
        """
        if self._single.get(via, 0.0) > services.loop.time():
            return None
        while (kept := self.warm(services, via)) is None:
            place = self._places.setdefault(via, _Place())
            place.timeout = timeout
            if place.dialling is None:
                return await self._dial(services, via, place)
            if await asyncio.shield(place.dialling) is None:
                return None
        return kept

    async def _dial(self, services: Services, via: Via, place: _Place) -> ClientTunnel | Single:
        """Dial, for all who wait meanwhile too."""
        dialling = place.dialling = services.loop.create_future()
        dialling.add_done_callback(_look_at)
        try:
            made = await self._connect(services, via, place)
        except BaseException as error:
            given_up = isinstance(error, asyncio.CancelledError)
            dialling.set_exception(sockets.ConnectFailed("the sidecar ends") if given_up else error)
            del dialling  # it knows the error, which knows this frame: that would wait for the garbage collector
            raise
        finally:
            place.dialling = None
            self._forget_empty(via, place)
        dialling.set_result(made if isinstance(made, ClientTunnel) else None)
        return made

    async def _connect(self, services: Services, via: Via, place: _Place) -> ClientTunnel | Single:
        bundle = services.credentials.current
        dialled, record = await dial(services, via, bundle, lambda bundle: bundle.tunnel_client, timeout=place.timeout)
        if dialled.result.event.alpn != names.ALPN_TUNNEL:
            record.abandon()
            if via.by_stream:
                sockets.reset(dialled.wire)
                raise HandshakeFailed(
                    f"the sidecar at {via} knows no tunnels, which is what its tunnel port is for: run the same "
                    "version on both sides, or leave tunnelPort out",
                    "nothing_in_common",
                )
            self._remember_single(via, services.loop.time())
            return Single(dialled)
        kept = ClientTunnel(
            services,
            dialled,
            record,
            bundle=bundle,
            via=via,
            leave=functools.partial(self._left, via, place),
            replace=functools.partial(self._replace, services, via, place),
            found=functools.partial(self._found, services, via, place),
        )
        self._places[via] = place
        place.tunnels.append(kept)
        kept.begin()
        if kept.tunnel.ended and not kept.is_spare:  # refused by what came with the handshake's end
            raise kept.take_failure() or HandshakeFailed(
                "the other sidecar closed the tunnel at once", "handshake_reset"
            )
        return kept

    # -- beside what is there ---------------------------------------------------------------------------------------

    def _dial_beside(self, services: Services, via: Via, place: _Place) -> None:
        """Another tunnel, for connections to come. Where that fails, the ones that are there go on."""
        if place.dialling is None:
            self._in_background(services, self._try_to_dial(services, via, place))

    def _found(self, services: Services, via: Via, place: _Place, kept: ClientTunnel) -> None:
        """`kept` leads to one of several servers, perhaps: look for the others."""
        others = [other for other in place.tunnels if other is not kept and other.is_fresh]
        is_new = kept.server is not None and place.servers.is_new(kept.server, [other.server for other in others])
        # A second one to the same server is of use where the first is busy, and only there.
        if not is_new and any(
            other.server == kept.server and len(other.tunnel.streams) < STREAMS_EACH for other in others
        ):
            kept.is_spare = True
            kept.retire()
        if place.next_look is None and place.servers.wants_another(len(place.tunnels)):
            place.next_look = services.loop.call_later(PAUSE_SECONDS, self._look_further, services, via, place)

    def _look_further(self, services: Services, via: Via, place: _Place) -> None:
        place.next_look = None
        in_use = any(kept.takes_streams and kept.is_in_use for kept in place.tunnels)
        if in_use and not services.registry.draining:
            self._dial_beside(services, via, place)

    def _replace(self, services: Services, via: Via, place: _Place, old: ClientTunnel) -> None:
        """A younger tunnel in the place of `old`, which goes on until that stands, as long as it may."""
        if any(other.is_fresh for other in place.tunnels if other is not old):
            return
        if place.dialling is None and not services.registry.draining:
            self._in_background(services, self._try_to_replace(services, via, place, old))

    async def _try_to_replace(self, services: Services, via: Via, place: _Place, old: ClientTunnel) -> None:
        if await self._try_to_dial(services, via, place):
            old.retire()

    async def _try_to_dial(self, services: Services, via: Via, place: _Place) -> bool:
        # Between the task's making and its first turn the place may have become empty and another one been made.
        place = self._places.setdefault(via, place)
        if place.dialling is not None:
            return False
        try:
            made = await self._dial(services, via, place)
        except (PeerError, HandshakeFailed, sockets.ConnectFailed, OSError) as error:
            _log.info("another tunnel to %s could not be had: %s", via, error)
            return False
        if isinstance(made, Single):  # another sidecar has taken the place of the one that knew tunnels
            sockets.reset(made.dialled.wire)
            return False
        return True

    def _in_background(self, services: Services, work: Coroutine[Any, Any, object]) -> None:
        task = services.loop.create_task(_nothing_of(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- bookkeeping ------------------------------------------------------------------------------------------------

    def _left(self, via: Via, place: _Place, kept: ClientTunnel) -> None:
        """`kept` takes no more streams."""
        place.tunnels.remove(kept)
        if not kept.is_spare:
            place.servers.changed()
        self._forget_empty(via, place)

    def _forget_empty(self, via: Via, place: _Place) -> None:
        if not place.tunnels and place.dialling is None and self._places.get(via) is place:
            del self._places[via]

    def _remember_single(self, via: Via, now: float) -> None:
        self._single[via] = now + _SINGLE_SECONDS
        self._single.move_to_end(via)
        if len(self._single) > _MOST_SINGLE:
            self._single.popitem(last=False)


async def _nothing_of(work: Coroutine[Any, Any, object]) -> None:
    await work


def _look_at(dialling: asyncio.Future[ClientTunnel | None]) -> None:
    """Nobody may have waited for it: then its error was told to whoever dialled."""
    if not dialling.cancelled():
        dialling.exception()
