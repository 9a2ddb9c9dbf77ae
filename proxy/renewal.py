"""When to ask for the next certificate, and how long to wait after a failure. Pure: times and randomness are arguments.

Times are the wall clock's, because a certificate's are, and a machine that slept or whose clock was set must notice:
whoever waits does so in short slices and asks again. Waiting after a failure needs no clock at all.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from dataclasses import dataclass
from typing import Final

# Of a certificate's life. By half of it at the latest, so that one of 24 hours outlives an authority that is away for
# twelve; not before 40 %, or everybody would ask for more than twice as many as are needed.
EARLIEST: Final = 0.40
LATEST: Final = 0.50
# An authority that gives certificates of seconds must not get signatures from us without a pause.
SHORTEST: Final = datetime.timedelta(seconds=1)
# A renewal that everybody is asked for at once (another generation signs now) is spread over so much: 10,000 sidecars
# then make some 30 requests a second. It may not take more than a tenth of a short certificate's life.
SPREAD: Final = datetime.timedelta(minutes=5)
SPREAD_OF_LIFE: Final = 0.10
# The clock went back by more than an authority forgives (ADR 12): what was planned by it means nothing any more.
CLOCK_TOLERANCE: Final = datetime.timedelta(minutes=5)
# Seconds. How late the end of a sleep, or a clock that was set, may be noticed.
SLICE: Final = 15.0
# Seconds. The first failure is often a restart; five minutes are soon enough for what lasts.
FIRST_BACKOFF: Final = 1.0
LONGEST_BACKOFF: Final = 300.0
# Seconds. An authority that wants us to stay away longer must not be able to let our certificate end by it.
LONGEST_RETRY_AFTER: Final = 900.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The life of one certificate as we see it: since when we have it, when to renew it, when it ends."""

    start: datetime.datetime
    due: datetime.datetime
    end: datetime.datetime

    def is_due(self, now: datetime.datetime) -> bool:
        """Whether to ask for the next certificate now."""
        return now >= self.due or now < self.start - CLOCK_TOLERANCE

    def has_ended(self, now: datetime.datetime) -> bool:
        """Whether no peer would accept the certificate any more."""
        return now > self.end

    def pause(self, now: datetime.datetime) -> float:
        """Seconds to wait before `is_due` is asked again."""
        return min(max((self.due - now).total_seconds(), 0.0), SLICE)

    def at_once(self) -> Schedule:
        """The same, due now."""
        return dataclasses.replace(self, due=self.start)

    def early(self, now: datetime.datetime, instance: str, random: float) -> Schedule:
        """The same, due within SPREAD: everybody else hears of the reason at this moment too."""
        span = min(SPREAD, (self.end - self.start) * SPREAD_OF_LIFE)
        return dataclasses.replace(self, due=min(self.due, now + span * share(instance, random)))


def schedule(now: datetime.datetime, end: datetime.datetime, instance: str, random: float) -> Schedule:
    """The schedule of a certificate that we got `now` and that ends at `end`; `random` from 0 to 1.

    By our own clock: one that is off by more than CLOCK_TOLERANCE gets no certificate.
    """
    due = now + (end - now) * (EARLIEST + (LATEST - EARLIEST) * share(instance, random))
    return Schedule(now, max(due, now + SHORTEST), end)


def share(instance: str, random: float) -> float:
    """A number in [0, 1) that is spread evenly over instances, however alike their `random` (0 to 1) may be.

    Pods that were started together, or forked from one snapshot, must not come together; and whoever happened to come
    together once must not do so each time.
    """
    own = int.from_bytes(hashlib.sha256(instance.encode()).digest()[:8], "big") / 2**64
    return (own + random) % 1.0


@dataclass(slots=True)
class Backoff:
    """How long to wait after each failure in a row: "full jitter" over a range that doubles."""

    failures: int = 0

    def after_failure(self, random: float, retry_after: float | None = None) -> float:
        """Seconds to wait now; at least what the authority asked for, within LONGEST_RETRY_AFTER. `random`: 0 to 1."""
        # 2^9 is past the bound already; the exponent must not grow with an outage.
        ceiling = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self.failures, 9))
        self.failures += 1
        asked = min(max(retry_after or 0.0, 0.0), LONGEST_RETRY_AFTER)
        return max(ceiling * random, asked)

    def after_success(self) -> None:
        """Begin anew."""
        self.failures = 0
