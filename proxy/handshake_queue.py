"""Handshakes take turns, so that they never keep the flows that are up waiting for longer than one of them costs.

A step of a handshake is one to three milliseconds of key exchange and signatures, a message of a flow microseconds.
Hundreds of ClientHellos that are readable at once would all be worked off before a flow is looked at again. So one step
is taken per turn of the loop; between two of them, everything else that is ready gets its turn.

Those who wait are asked in rounds, one step for each address that they come from: whoever sends thousands waits behind
itself, and a peer from anywhere else is next.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable


class HandshakeQueue:
    """Of one loop. `on_length` hears how many steps wait, each time that this changes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_length: Callable[[int], None]) -> None:
        self._loop = loop
        self._on_length = on_length
        self._waiting: collections.OrderedDict[str, collections.deque[asyncio.Future[None]]] = collections.OrderedDict()
        self._length = 0
        self._taken = False  # the step of this turn
        self._armed = False

    def __len__(self) -> int:
        return self._length

    async def turn(self, source: str) -> None:
        """Return when a step may be taken by somebody from `source`."""
        if not self._taken and not self._length:
            self._taken = True
            self._arm()
            return
        waiting = self._loop.create_future()
        self._waiting.setdefault(source, collections.deque()).append(waiting)
        self._change_by(1)
        self._arm()
        try:
            await waiting
        except asyncio.CancelledError:
            self._give_up(source, waiting)
            raise

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        """The loop's next turn has begun."""
        self._armed = False
        self._taken = False
        while self._waiting:
            waiting = self._pop()
            if not waiting.done():  # it may have been cancelled, and not have heard of that yet
                self._taken = True
                waiting.set_result(None)
                self._arm()
                return

    def _pop(self) -> asyncio.Future[None]:
        """The first of the source whose round it is, which goes to the end of the round."""
        source, line = next(iter(self._waiting.items()))
        waiting = line.popleft()
        if line:
            self._waiting.move_to_end(source)
        else:
            del self._waiting[source]
        self._change_by(-1)
        return waiting

    def _give_up(self, source: str, waiting: asyncio.Future[None]) -> None:
        """Who has been let through already (and was cancelled at the same time) is in no line any more."""
        line = self._waiting.get(source)
        if line is not None and waiting in line:
            line.remove(waiting)
            self._change_by(-1)
            if not line:
                del self._waiting[source]

    def _change_by(self, count: int) -> None:
        self._length += count
        self._on_length(self._length)
