"""What is left to do for connections that are over, done for many at once: nobody waits for it.

The counters and the line of a connection that has ended cost a fifth of what the connection did, and the next one's
first byte would wait for them. In a batch they cost half as much: the code is in the processor's caches then, and lines
go out together.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from proxy.reasons import CLOSED, Verdict

# Later than that nobody would say that the log tells what happens now; and sooner there are few to do at once.
SECONDS: Final = 0.02
# Half a millisecond of work, which flows that are up wait for.
MOST: Final = 64

_log = logging.getLogger("qbitel.proxy")


class Ended(Protocol):
    """A connection that is over, as it should be."""

    def tell(self, verdict: Verdict, when: datetime.datetime, ended: float) -> None:
        """Count it and write its line. It was over at `when`, and at `ended` by the monotonic clock."""


class Endings:
    """At most MOST of them wait, for at most SECONDS."""

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        settle: Callable[[], None],
        now: Callable[[], datetime.datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`call_later` is the loop's; `settle` is called behind each batch."""
        self._call_later = call_later
        self._settle = settle
        self._now = now
        self._monotonic = monotonic
        self._waiting: list[tuple[Ended, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Ended, ended: float) -> None:
        """Have `connection`, which was over at `ended` by the monotonic clock, tell so soon: first come, first told."""
        self._waiting.append((connection, ended))
        if len(self._waiting) >= MOST:
            self.flush()
        elif self._timer is None:
            self._timer = self._call_later(SECONDS, self.flush)

    def flush(self) -> None:
        """Do it now: somebody wants to read what they tell, or the process ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        now, monotonic = self._now(), self._monotonic()
        for connection, ended in waiting:
            try:
                connection.tell(CLOSED, now - datetime.timedelta(seconds=monotonic - ended), ended)
            except Exception:  # noqa: BLE001  # one connection's bug must not keep the others from being told
                _log.exception("a bug lost the record of one connection; please report it")
        self._settle()
