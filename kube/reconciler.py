"""Brings what there is in line with what should be, step by step, while this replica leads.

What to do is decided anew from everything that is known, never from the event that came: an event that was missed, or
a step that was done twice, therefore changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from kube.backoff import Backoff
from kube.client import ApiRefused, ApiUnavailable
from mesh.errors import UserError

# How soon after an election its winner begins.
_LOOK_SECONDS: Final = 1.0
# How soon what is due by the clock alone is noticed.
_REVIEW_SECONDS: Final = 10.0
# At most twenty writes a second, which an API server does not feel: a new list of 30 kB is in 1000 namespaces within a
# minute.
_PACE_SECONDS: Final = 0.05
_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 60.0
# What is done so often for the same goal, without a calm time in between, is undone by somebody: whoever does that, by
# mistake or to keep us busy, gets one write a minute in the end.
_FREE_REPEATS: Final = 10
_CALM_SECONDS: Final = 120.0  # longer than the longest wait, or the waiting itself would count as calm
# Deciding anew takes the processor; whoever changes something all the time may have this share of it.
_PLANNING_SHARE: Final = 0.1

_log = logging.getLogger("qbitel.kube")


@dataclass(frozen=True, slots=True)
class Step:
    """One write: what it is about ("shop/web"), what it does in words, and how.

    `goal` stands for what is published everywhere, of which nobody but the authority makes another.
    """

    about: str
    what: str
    act: Callable[[], Awaitable[None]]
    goal: str = ""


@dataclass(slots=True)
class _Past:
    """How it went with one thing lately; times are the clock's."""

    failures: Backoff
    repeats: Backoff
    not_before: float = -math.inf
    goal: str = ""
    successes: int = 0  # for this goal, without a calm time in between
    last: float = -math.inf

    def calm_down(self) -> None:
        """What was done before is no sign that somebody undoes it."""
        self.successes = 0
        if self.repeats.failures:
            self.repeats.succeeded()
            self.not_before = -math.inf


class Reconciler:
    """Carries out what `plan` returns, for as long as it returns anything."""

    def __init__(
        self,
        plan: Callable[[], Awaitable[Sequence[Step]]],
        is_leader: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        failures: tuple[type[Exception], ...] = (),
    ) -> None:
        """`failures` are a step's own errors, beside the API server's: told, and tried again."""
        self._failures: tuple[type[Exception], ...] = (ApiUnavailable, ApiRefused, UserError, *failures)
        self._plan = plan
        self._is_leader = is_leader
        self._clock = clock
        self._poked = asyncio.Event()
        self._pasts: dict[str, _Past] = {}
        self._last = ""

    def poke(self) -> None:
        """Something may be another: look soon."""
        self._poked.set()

    async def run(self) -> NoReturn:
        """Look whenever poked, and every few seconds, until cancelled."""
        reviewed = -math.inf
        while True:
            if not self._is_leader():
                reviewed = -math.inf  # whoever begins to lead looks at everything at once
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._poked.wait()
            if self._poked.is_set() or self._clock() - reviewed >= _REVIEW_SECONDS:
                self._poked.clear()
                reviewed = self._clock()
                steps = await self._plan()
                planned = self._clock()
                again = planned + (planned - reviewed) / _PLANNING_SHARE
                await self._carry_out(steps, again)
                await asyncio.sleep(max(_PACE_SECONDS, again - self._clock()))

    async def _carry_out(self, steps: Sequence[Step], again: float) -> None:
        self._forget({step.about for step in steps})
        done: list[Step] = []
        for step in self._in_turn(steps):
            # What came meanwhile may concern what is still to do: decide again, as soon as that may be.
            if (self._poked.is_set() and self._clock() >= again) or not self._is_leader():
                break
            past = self._pasts.get(step.about) or _Past(_retries(), _retries())
            if past.goal != step.goal:
                past.goal = step.goal
                past.calm_down()
            if self._clock() < past.not_before:
                continue
            self._pasts[step.about] = past
            self._last = step.about
            if await self._take(step, past):
                done.append(step)
            await asyncio.sleep(_PACE_SECONDS)
        if done:
            # One line, however many namespaces get a new list.
            _log.info("%s: %s (and %d more like that)", done[0].about, done[0].what, len(done) - 1)

    def _in_turn(self, steps: Sequence[Step]) -> list[Step]:
        """Go on behind what was done last: one thing that is always to be done again keeps no other from its turn."""
        return sorted(steps, key=lambda step: (step.about <= self._last, step.about))

    async def _take(self, step: Step, past: _Past) -> bool:
        try:
            await step.act()
        except self._failures as error:
            if not past.failures.failures:
                _log.warning("%s: %s failed: %s", step.about, step.what, error)
            past.last = self._clock()
            past.not_before = past.last + past.failures.failed()
            return False
        past.failures.succeeded()
        past.last = self._clock()
        past.successes += 1
        if past.successes >= _FREE_REPEATS:
            if not past.repeats.failures:
                _log.warning("%s: %s: done %d times in a row; who undoes it?", step.about, step.what, _FREE_REPEATS)
            past.not_before = past.last + past.repeats.failed()
        return True

    def _forget(self, due: set[str]) -> None:
        """Failures with what is not due any more, and everything after a calm time."""
        now = self._clock()
        for about, past in self._pasts.items():
            if about not in due and past.failures.failures:
                past.failures.succeeded()
                past.not_before = -math.inf
            if now - past.last >= _CALM_SECONDS:
                past.calm_down()
        self._pasts = {about: past for about, past in self._pasts.items() if past.successes or past.failures.failures}


def _retries() -> Backoff:
    return Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
