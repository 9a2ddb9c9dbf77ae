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

from certmgr.kubernetes.backoff import Backoff
from certmgr.kubernetes.client import ApiRefused, ApiUnavailable
from certmgr.proofs import Refused
from certmgr.store import StoreUnavailable
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

_log = logging.getLogger("qbitel.certmgr")


@dataclass(frozen=True, slots=True)
class Step:
    """One write: what it is about ("shop/web"), what it does in words, and how."""

    about: str
    what: str
    act: Callable[[], Awaitable[None]]


class Reconciler:
    """Carries out what `plan` returns, for as long as it returns anything."""

    def __init__(
        self,
        plan: Callable[[], Sequence[Step]],
        is_leader: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._is_leader = is_leader
        self._clock = clock
        self._poked = asyncio.Event()
        # What failed: not before when to try again. It is forgotten with the first success, or when it is not due.
        self._failing: dict[str, tuple[Backoff, float]] = {}

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
                await self._carry_out(self._plan())

    async def _carry_out(self, steps: Sequence[Step]) -> None:
        due = {step.about for step in steps}
        self._failing = {about: state for about, state in self._failing.items() if about in due}
        done: list[Step] = []
        for step in steps:
            # What came meanwhile may concern what is still to do: decide again.
            if self._poked.is_set() or not self._is_leader():
                break
            backoff, not_before = self._failing.get(step.about, (None, 0.0))
            if backoff is not None and self._clock() < not_before:
                continue
            try:
                await step.act()
            except (ApiUnavailable, ApiRefused, StoreUnavailable, Refused, UserError) as error:
                backoff = backoff or Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
                if not backoff.failures:
                    _log.warning("%s: %s failed: %s", step.about, step.what, error)
                self._failing[step.about] = (backoff, self._clock() + backoff.failed())
            else:
                self._failing.pop(step.about, None)
                done.append(step)
            await asyncio.sleep(_PACE_SECONDS)
        if done:
            # One line, however many namespaces get a new list.
            _log.info("%s: %s (and %d more like that)", done[0].about, done[0].what, len(done) - 1)
