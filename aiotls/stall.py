"""Whether anything moves still: a connection that is being closed is not waited for without end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Gets the seconds that the timer was started with.
OnStall = Callable[[float], None]


class StallTimer:
    """Tells once that nothing has moved for so many seconds. It holds whom it tells only while it is started."""

    __slots__ = ("_handle", "_last", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._last = 0.0

    def start(self, seconds: float, on_stall: OnStall, *, whatever_moves: bool = False) -> None:
        """From now on, in place of what was started before. `whatever_moves`: it ends then in any case."""
        self.cancel()
        self._last = self._loop.time()
        if whatever_moves:
            self._handle = self._loop.call_later(seconds, on_stall, seconds)
        else:
            self._handle = self._loop.call_later(seconds, self._look, seconds, on_stall)

    def moved(self) -> None:
        """Something did just now."""
        self._last = self._loop.time()

    def cancel(self) -> None:
        """Tell no more. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self, seconds: float, on_stall: OnStall) -> None:
        idle = self._loop.time() - self._last
        if idle < seconds:
            self._handle = self._loop.call_later(seconds - idle, self._look, seconds, on_stall)
        else:
            self._handle = None
            on_stall(seconds)
