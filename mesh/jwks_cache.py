"""When an issuer's keys are fetched: decided here, done by whoever does I/O. Nobody waits, and nobody is hammered."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mesh.jwks import KeySet, KeySetRefused, read_key_set


@dataclass(frozen=True, slots=True)
class FetchTimes:
    """The rhythm of fetching, in seconds."""

    refresh: float = 1200.0  # Istio's PILOT_JWT_PUB_KEY_REFRESH_INTERVAL: 20 minutes
    # A stranger's token with an invented kid asks for newer keys: once in this time, however many come.
    least_pause: float = 30.0
    first_retry: float = 1.0  # doubled with each failure, up to `refresh`
    timeout: float = 30.0  # a fetch that has not come back by then is one that failed
    # Keys outlive their issuer's failures by this, and no more: who keeps us from fetching would keep a withdrawn key.
    keep: float = 24 * 3600.0

    def __post_init__(self) -> None:
        for name in ("refresh", "least_pause", "first_retry", "timeout", "keep"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 seconds")
        if self.refresh > self.keep:
            raise ValueError(f"refresh is {self.refresh}; it must be at most keep, {self.keep}")


class KeyCache:
    """The keys of one issuer.

        if now >= cache.due: cache.started(now); fetch in the background, then …
            cache.fetched(body, now, random) or cache.failed("…", now, random)
        keys = cache.keys(now)
        verify(token, keys, …) → UNKNOWN_KEY: cache.unknown_key(now)

    A request never waits for a fetch but the first ones, while `keys` is None: there is nothing to verify with yet.
    """

    __slots__ = ("_failures", "_fetched_at", "_keys", "_started_at", "_times", "due", "problem")

    def __init__(self, times: FetchTimes, now: float) -> None:
        self._times = times
        self._keys: KeySet | None = None
        self._fetched_at = -math.inf
        self._started_at = -math.inf
        self._failures = 0
        self.due = now
        """When the next fetch is to be started, seconds of a monotonic clock."""
        self.problem: str | None = None
        """Why the last fetch failed, in one line; None after one that succeeded."""

    def keys(self, now: float) -> KeySet | None:
        """The keys to verify with, a little old where fetching fails; None where there are none to rely on."""
        return self._keys if now - self._fetched_at < self._times.keep else None

    def started(self, now: float) -> None:
        """A fetch is under way."""
        self._started_at = now
        self.due = now + self._times.timeout

    def fetched(self, body: bytes, now: float, random: float) -> bool:
        """The issuer has answered with 200 and `body`; False where that is of no use, which counts as a failure.

        `random`, from 0.0 up to 1.0, spreads the next fetch over the last tenth of the pause before it.
        """
        try:
            keys = read_key_set(body)
        except KeySetRefused as refused:
            self.failed(str(refused), now, random)
            return False
        if not keys.keys:
            # Who has no key left would have said so by closing down; this is a mistake, or somebody else's page.
            self.failed("; ".join(("the key set has no key of use", *keys.notes)), now, random)
            return False
        self._keys = keys
        self._fetched_at = now
        self._failures = 0
        self.problem = None
        self.due = now + self._times.refresh * (1.0 - random / 10)
        return True

    def failed(self, why: str, now: float, random: float) -> None:
        """The issuer was not reached, or answered something else; what is known is kept, and it is asked again."""
        self.problem = why
        # Capped well before 2.0**1024, which would overflow.
        pause = min(self._times.first_retry * 2.0 ** min(self._failures, 64), self._times.refresh)
        self._failures += 1
        self.due = now + pause * (1.0 - random / 10)

    def unknown_key(self, now: float) -> None:
        """A token names a key that is not known: perhaps the issuer has a new one. Fetch as soon as is decent."""
        soonest = max(now, self._started_at + self._times.least_pause)
        # While fetching fails, its own pauses hold.
        if self._failures == 0:
            self.due = min(self.due, soonest)
