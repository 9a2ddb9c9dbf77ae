"""Token buckets: how many requests may pass, as arithmetic on whole numbers with the time as an argument."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Generic, TypeVar

NANOSECONDS: Final = 10**9
# A float's rate is taken as the nearest fraction with a denominator up to this: 1/3600 and 0.1 become exact.
_FINEST_RATE: Final = 10**6
# Envoy's fields are uint32; the bound keeps the numbers of a bucket within a few machine words.
_LARGEST: Final = 2**32 - 1
_LONG_AGO: Final = -(2**127)

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Envoy's `token_bucket`: at most `max_tokens` at once, `tokens_per_fill` more each `fill_interval` nanoseconds.

    The tokens trickle in evenly, where Envoy pours them in at the end of each interval: what passes in any window is
    never more than Envoy lets pass, and a client does not learn to wait for the pour.
    """

    max_tokens: int
    tokens_per_fill: int = 1
    fill_interval: int = NANOSECONDS

    def __post_init__(self) -> None:
        for name in ("max_tokens", "tokens_per_fill"):
            if not 1 <= getattr(self, name) <= _LARGEST:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a whole number from 1 to {_LARGEST}")
        if self.fill_interval < 1:
            raise ValueError(f"fill_interval is {self.fill_interval}; it must be at least one nanosecond")

    @classmethod
    def per_second(cls, rate: float | Fraction, burst: int) -> RateLimit:
        """The limit of `rate` tokens a second (1e-6 … 2**32-1), `burst` of them at once."""
        if not math.isfinite(rate) or rate <= 0:
            raise ValueError(f"rate is {rate}; it must be a positive number of tokens a second")
        exact = Fraction(rate).limit_denominator(_FINEST_RATE)
        if not 1 <= exact.numerator <= _LARGEST:
            raise ValueError(
                f"rate is {rate}; it must be from one token in {_FINEST_RATE} seconds to {_LARGEST} a second"
            )
        return cls(burst, exact.numerator, exact.denominator * NANOSECONDS)


class TokenBucket:
    """One bucket, full at first.

    In any window of t seconds at most burst + rate·t tokens are taken, without a rounding error: the state is one whole
    number, the moment at which the bucket will be full again (the generic cell rate algorithm of ITU-T I.371), counted
    in nanoseconds times `tokens_per_fill`. A clock is read to the nanosecond, so t is meant to the nanosecond too.
    A clock that goes backwards gives nothing: there is less in the bucket until it has caught up.
    """

    __slots__ = ("_cost", "_full_at", "_scale", "_span")

    def __init__(self, limit: RateLimit) -> None:
        self._scale = limit.tokens_per_fill
        self._cost = limit.fill_interval
        self._span = limit.max_tokens * limit.fill_interval
        self._full_at = _LONG_AGO

    def take(self, now: float, n: int = 1) -> bool:
        """Take `n` tokens (at least 1) at `now` (seconds of a monotonic clock), or none and return False."""
        if n < 1:
            raise ValueError(f"n is {n}; at least one token is taken")
        time = int(now * 1e9) * self._scale
        full_at = self._full_at
        after = (full_at if full_at > time else time) + n * self._cost
        if after - time > self._span:
            return False
        self._full_at = after
        return True

    def wait(self, now: float, n: int = 1) -> float:
        """Seconds from `now` until take(…, n) will succeed if nobody else takes: 0.0 at once, inf never."""
        if n * self._cost > self._span:
            return math.inf
        time = int(now * 1e9) * self._scale
        over = max(self._full_at, time) + n * self._cost - time - self._span
        if over <= 0:
            return 0.0
        # Rounded up to the next nanosecond, and once more to what a float as large as `now` can tell apart.
        nanoseconds = -(-over // self._scale) + 1
        return nanoseconds / NANOSECONDS + math.ulp(now)


class TokenBuckets(Generic[Key]):
    """A bucket for each key, at most `capacity` of them; keys may be chosen by strangers.

    Forgetting a full bucket changes nothing, for a new one is full as well. Where none is full, a newcomer takes the
    place *and the state* of the fullest. Nobody is ever better off for having been forgotten: whoever comes back finds
    at most as much as was there when it went, because all others had less. So the limit holds for each key, whatever
    the number of keys, at the price that newcomers to a collection that is crowded with busy keys start lower.
    """

    __slots__ = ("_capacity", "_cost", "_full_at", "_heap", "_scale", "_span")

    def __init__(self, limit: RateLimit, capacity: int = 10_000) -> None:
        """`capacity` buckets take about 200 bytes each beside their keys."""
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; it must be at least 1")
        self._scale = limit.tokens_per_fill
        self._cost = limit.fill_interval
        self._span = limit.max_tokens * limit.fill_interval
        self._capacity = capacity
        self._full_at: dict[Key, int] = {}
        # One entry for each key, in the order of arrival where times are equal. An entry may be older than the bucket,
        # never newer: full_at only grows.
        self._heap: list[tuple[int, int, Key]] = []

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Key, now: float, n: int = 1) -> bool:
        """Take `n` tokens from the bucket of `key` at `now`, as TokenBucket.take does."""
        if n < 1:
            raise ValueError(f"n is {n}; at least one token is taken")
        time = int(now * 1e9) * self._scale
        full_at = self._full_at.get(key)
        if full_at is None:
            full_at = self._admit(key, time)
        after = (full_at if full_at > time else time) + n * self._cost
        if after - time > self._span:
            return False
        self._full_at[key] = after
        return True

    def _admit(self, key: Key, time: int) -> int:
        known = self._full_at
        if len(known) < self._capacity:
            heapq.heappush(self._heap, (time, len(known), key))
            known[key] = time
            return time
        while True:
            noted, place, fullest = self._heap[0]
            full_at = known[fullest]
            if full_at == noted:
                break
            heapq.heapreplace(self._heap, (full_at, place, fullest))
        # Not put at `time` where that is later: a clock that went back must not leave the newcomer with more.
        heapq.heapreplace(self._heap, (full_at, place, key))
        del known[fullest]
        known[key] = full_at
        return full_at
