"""Looking again for a moment, rather than going to sleep, where that has paid (docs/adr/0024-busy-polling.md).

One connection at a time is a chain of processes that wake one another up. To sleep and to be woken costs each of them
tens of microseconds, as much as its work. Who expects the next event at once does not sleep: it gives way to others
that want the processor, looks, and gives way again, for a window of time. When events stop coming within the window,
it stops too, and tries again after ever longer pauses: an idle sidecar sleeps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

# Seconds. An answer from behind the other sidecar and its application takes 100 to 200 microseconds on one machine:
# 100 in place of 200 gain 5 to 10 % less, 400 no more than the noise (docs/adr/0024-busy-polling.md).
WINDOW: Final = 200e-6
# Where a turn has more to do than that, on average, more is there when it ends: nobody would sleep, and what comes
# meanwhile leaves in one record. One connection at a time makes two events a turn and now and then a third: its end,
# the next one, its first bytes. The average is over some eight turns.
_FEW: Final = 3.0
_WEIGHT: Final = 1 / 8
# After so many windows in a row in which nothing came, so many events that would have been reason to look are passed
# over: at first, and at most, doubled each time. Three windows in 1,024 events cost next to nothing.
_MISSES: Final = 3
_FIRST_PAUSE: Final = 8
_LONGEST_PAUSE: Final = 1024
# Who computes beside us gets its time slice when we give way (3 ms on Linux), and an event would wait for that; whoever
# sleeps is woken before it is over. So where giving way took this long (seconds), none of it for a hundred times that.
_LONG: Final = 0.001
_BACK_OFF: Final = 100


def window_where(cpus: float, workers: int) -> float:
    """The window for a process of so many workers with the time of `cpus` processors; 0 for none.

    To look costs time, which must be there: for each worker a processor, or a container's limit would stop it for the
    rest of a tenth of a second; and another one, for who is waited for.
    """
    return WINDOW if cpus >= workers and cpus > 1 else 0.0


class BusyPolling:
    """When to look again, of one reactor. Times are seconds of `clock`; `give_way` is sched_yield(2)."""

    __slots__ = (
        "_clock", "_give_way", "_is_looking", "_is_near", "_mean", "_misses", "_not_before", "_passed_over", "_pause",
        "_turn_ended", "_window",
    )  # fmt: skip

    def __init__(
        self,
        window: float = WINDOW,
        *,
        clock: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], None] = os.sched_yield,
    ) -> None:
        self._window = window
        self._clock = clock
        self._give_way = give_way
        self._turn_ended = clock() - 2 * window
        self._is_near = False
        self._is_looking = False
        self._mean = 0.0
        self._misses = 0
        self._pause = 0
        self._passed_over = 0
        self._not_before = 0.0

    def turn_begins(self) -> None:
        """Something has come."""
        # Twice: while we and the others still sleep in between, everything takes longer than it will.
        self._is_near = self._clock() - self._turn_ended < 2 * self._window
        if self._is_looking:
            self._misses = self._pause = 0

    def turn_ends(self, events: int) -> bool:
        """All is done for `events` of them. Return whether look_again() is to be called soon, and not yet will be."""
        self._turn_ended = now = self._clock()
        self._mean += (events - self._mean) * _WEIGHT
        if self._is_looking or not self._is_near or self._mean >= _FEW or now < self._not_before:
            return False
        if self._passed_over < self._pause:
            self._passed_over += 1
            return False
        self._is_looking = True
        return True

    def look_again(self) -> bool:
        """Give way to others. Return whether to look what has come, and to call this again behind that."""
        now = self._clock()
        if now - self._turn_ended >= self._window:
            self._missed()
        elif self._mean < _FEW:
            self._give_way()
            took = self._clock() - now
            if took < _LONG:
                return True
            self._not_before = now + _BACK_OFF * took
        self._is_looking = False
        return False

    def _missed(self) -> None:
        self._misses += 1
        if self._misses >= _MISSES:
            self._misses = self._passed_over = 0
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
