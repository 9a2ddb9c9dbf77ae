"""Warnings about refused connections, at a bounded rate: whoever can connect can be refused, as often as it likes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

# Lines a second that a person could still make sense of, and as many at once as a rollout gone wrong brings.
RATE: Final = 20.0
BURST: Final = 200.0

_log = logging.getLogger("qbitel.proxy")


class RefusalLog:
    """A token bucket in front of the log. What it holds back is counted, and said in one line."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._tokens = BURST
        self._filled = monotonic()
        self._held_back = 0

    def warn(self, sentence: Callable[[], str]) -> None:
        """Log `sentence()`, unless there were too many lately: then it is not even made."""
        if not self._take():
            self._held_back += 1
            return
        self._sum_up()
        _log.warning("%s", sentence())

    def sum_up(self) -> None:
        """To be called from time to time, and at the end: say how many were held back, once it is quieter."""
        if self._held_back and self._take():
            self._sum_up()

    def _take(self) -> bool:
        now = self._monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._filled) * RATE)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _sum_up(self) -> None:
        if self._held_back:
            _log.warning(
                "%d more refusals were not logged one by one; see qbitel_connections_refused_total", self._held_back
            )
            self._held_back = 0
