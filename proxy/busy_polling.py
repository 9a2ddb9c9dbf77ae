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
# 100 in place of 200 gain 2 to 7 % less, 400 no more than the noise (docs/adr/0024-busy-polling.md).
WINDOW: Final = 200e-6
# Where there was a turn with so many events lately, many connections have something to say: who looks takes events one
# by one, who sleeps finds ten that leave together. One connection at a time makes three at the most: its end, the
# next one, its first bytes. What a turn had is forgotten over some 32 turns.
_MANY: Final = 4.0
# The same where two events come after less than this on average, in seconds and over some 32 turns. One connection of
# 64 bytes and one connection at a time make an event each 60 to 90 microseconds on the machine on which 32 connections
# make one each 25 to 30.
_FAST: Final = 40e-6
# And where turns take longer than this on average, in seconds: that is bulk, beside which a wake-up is little. A turn
# of small messages takes 20 to 80 microseconds, one of 256 KiB 150 and more; looking cost bulk 5 % of its rate.
_LONG_TURN: Final = 120e-6
_WEIGHT: Final = 1 / 32
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

    To look costs time, which must be there: for each worker a processor's, or a container's limit would stop it for the
    rest of a tenth of a second; and more than a single one's, for who is waited for.
    """
    return WINDOW if cpus >= workers and cpus > 1 else 0.0


class BusyPolling:
    """When to look again, of one reactor. Times are seconds of `clock`; `give_way` is sched_yield(2)."""

    __slots__ = (
        "_clock", "_events", "_give_way", "_interval", "_is_looking", "_is_near", "_longest_interval", "_misses",
        "_not_before", "_passed_over", "_pause", "_since_turn_began", "_took", "_turn_began", "_turn_ended", "_window",
    )  # fmt: skip

    def __init__(
        self,
        window: float = WINDOW,
        *,
        clock: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], None] = os.sched_yield,
    ) -> None:
        self._window = window
        self._longest_interval = 2 * window
        self._clock = clock
        self._give_way = give_way
        self._turn_began = self._turn_ended = clock() - 2 * window
        self._since_turn_began = 2 * window
        self._is_near = False
        self._is_looking = False
        self._events = 0.0  # in a turn: the most of the last ones
        self._interval = 2 * window  # between two events, on average
        self._took = 0.0  # a turn, on average
        self._misses = 0
        self._pause = 0
        self._passed_over = 0
        self._not_before = 0.0

    def turn_begins(self) -> None:
        """Something has come."""
        now = self._clock()
        # Twice: while we and the others still sleep in between, everything takes longer than it will.
        self._is_near = now - self._turn_ended < self._longest_interval
        self._since_turn_began = now - self._turn_began
        self._turn_began = now
        if self._is_looking:
            self._misses = self._pause = 0

    def turn_ends(self, events: int) -> bool:
        """All is done for `events` of them. Return whether look_again() is to be called soon, and not yet will be."""
        # Called for each turn of the data path: min() and max() would cost half of all that is done here.
        self._turn_ended = now = self._clock()
        lately = self._events
        self._events = events if events >= lately else lately + (events - lately) * _WEIGHT
        interval = self._since_turn_began
        interval = min(interval, self._longest_interval)
        if events > 1:
            interval /= events
        self._interval += (interval - self._interval) * _WEIGHT
        self._took += (now - self._turn_began - self._took) * _WEIGHT
        if self._is_looking or not self._is_near or self._is_busy or now < self._not_before:
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
        elif not self._is_busy:
            self._give_way()
            took = self._clock() - now
            if took < _LONG:
                return True
            self._not_before = now + _BACK_OFF * took
        self._is_looking = False
        return False

    @property
    def _is_busy(self) -> bool:
        """Whether so much comes that it is better taken together, or costs so much that a wake-up is little."""
        return self._events >= _MANY or self._interval < _FAST or self._took > _LONG_TURN

    def _missed(self) -> None:
        self._misses += 1
        if self._misses >= _MISSES:
            self._misses = self._passed_over = 0
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
