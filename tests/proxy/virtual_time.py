"""A clock that a test sets, and a sleep that ends by it: hours of waiting in no time."""

from __future__ import annotations

import asyncio
import datetime
import heapq
import itertools

# Turns of the loop that whatever was woken gets to go on to its next sleep. Nothing here waits for a socket.
_TURNS = 40


class VirtualTime:
    """`now` and `sleep` for what is tested; `pass_until` for the test."""

    def __init__(self, now: datetime.datetime) -> None:
        self._now = now
        self._order = itertools.count()
        self._sleeping: list[tuple[datetime.datetime, int, asyncio.Future[None]]] = []

    def now(self) -> datetime.datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        at = self._now + datetime.timedelta(seconds=seconds)
        heapq.heappush(self._sleeping, (at, next(self._order), wake))
        await wake

    async def pass_until(self, then: datetime.datetime) -> None:
        """Let everything happen that happens up to then."""
        await self._settle()
        while self._sleeping and self._sleeping[0][0] <= then:
            at, _, wake = heapq.heappop(self._sleeping)
            if wake.done():  # given up
                continue
            self._now = max(self._now, at)
            wake.set_result(None)
            await self._settle()
        self._now = then

    def set_clock(self, now: datetime.datetime) -> None:
        """The wall clock is set; whoever sleeps goes on sleeping for as long as before."""
        moved = now - self._now
        self._now = now
        self._sleeping = [(at + moved, order, wake) for at, order, wake in self._sleeping]

    async def _settle(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
