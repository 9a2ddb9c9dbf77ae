"""Retries that cannot make an overload worse: how often, after which pause, and how many in all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

# Envoy's words for `retryOn`, those of HTTP and of gRPC; Istio's default is the first row.
RETRY_CONDITIONS: Final = frozenset(
    {
        *("connect-failure", "refused-stream", "unavailable", "cancelled"),
        *("5xx", "gateway-error", "reset", "reset-before-request", "retriable-4xx", "retriable-status-codes"),
        *("retriable-headers", "envoy-ratelimited", "http3-post-connect-failure"),
        *("deadline-exceeded", "internal", "resource-exhausted"),
    }
)
DEFAULT_CONDITIONS: Final = frozenset({"connect-failure", "refused-stream", "unavailable", "cancelled"})
# The statuses that have a name (RFC 9110 §15 and IANA's registry): Istio takes no others.
STATUSES: Final = frozenset(
    map(
        str,
        (
            *(*range(100, 104), *range(200, 209), 226, *range(300, 306), 307, 308),
            *(*range(400, 419), *range(421, 427), 428, 429, 431, 451, *range(500, 509), 510, 511),
        ),
    )
)


def is_condition(word: str) -> bool:
    """Whether `word` can stand in retryOn: one of Envoy's words, or a status of HTTP that has a name."""
    return word in RETRY_CONDITIONS or word in STATUSES


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """VirtualService's `retries`: whether an attempt is repeated, and after which pause. Times are seconds."""

    attempts: int = 2  # beside the first; 0 is never
    per_try_timeout: float | None = None  # None: the route's timeout is the only one
    retry_on: frozenset[str] = DEFAULT_CONDITIONS
    base_interval: float = 0.025  # Envoy's default
    max_interval: float = 0.25  # Envoy's default, ten times the base

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise ValueError(f"attempts is {self.attempts}; it must be 0 or more")
        if self.per_try_timeout is not None and not self.per_try_timeout > 0:
            raise ValueError(f"per_try_timeout is {self.per_try_timeout}; it must be above 0 seconds")
        if not 0 < self.base_interval <= self.max_interval < math.inf:
            raise ValueError(
                f"base_interval is {self.base_interval}; it must be above 0, at most {self.max_interval} (max_interval)"
            )
        if unknown := sorted(word for word in self.retry_on if not is_condition(word)):
            known = ", ".join(sorted(RETRY_CONDITIONS))
            raise ValueError(f"retry_on has {', '.join(unknown)}; it may have statuses of HTTP, and {known}")

    def allows(self, retry: int, condition: str) -> bool:
        """Whether retry number `retry` (1 is the first) may follow an attempt that ended in `condition`."""
        return retry <= self.attempts and condition in self.retry_on

    def pause(self, retry: int, random: float) -> float:
        """Seconds to wait before retry number `retry` (1 is the first).

        Full jitter, as Envoy has it: evenly between nothing and base·(2^retry - 1), at most `max_interval`. `random` is
        a number from 0.0 up to 1.0, of the caller's making.
        """
        # Doubling stops to matter long before 2^64; a float would overflow at 2^1024.
        return random * min(self.base_interval * (2.0 ** min(retry, 64) - 1.0), self.max_interval)


@dataclass(frozen=True, slots=True)
class ConcurrencyBudget:
    """Envoy's retry budget: retries under way are at most a share of all that is under way.

    It is what `connectionPool.http.maxRetries` should be: a fixed number is too many for a small destination and too
    few for a large one.
    """

    percent: float = 20.0
    min_concurrency: int = 3  # so that little traffic can be retried at all

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError(f"percent is {self.percent}; it must be from 0 to 100")
        if self.min_concurrency < 0:
            raise ValueError(f"min_concurrency is {self.min_concurrency}; it must be 0 or more")

    def allows(self, retries: int, requests: int) -> bool:
        """Whether one more retry may start while `retries` are under way among `requests`, active and pending."""
        return retries < max(self.min_concurrency, requests * self.percent / 100)


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """Linkerd's retry budget: a share of the requests of the last `ttl` seconds, and some more each second."""

    ratio: float = 0.2  # retries for each request
    min_per_second: float = 10.0
    ttl: float = 10.0  # seconds, 1 to 60

    def __post_init__(self) -> None:
        # More than 1,000 retries for a request is no budget (and Linkerd's own bound).
        if not 0 <= self.ratio <= 1000:
            raise ValueError(f"ratio is {self.ratio}; it must be from 0 to 1000")
        if not 0 <= self.min_per_second < math.inf:
            raise ValueError(f"min_per_second is {self.min_per_second}; it must be 0 or more")
        if not 1 <= self.ttl <= 60:
            raise ValueError(f"ttl is {self.ttl}; it must be from 1 to 60 seconds")


# The window moves on in tenths: what a request has earned is forgotten between 0.9 and 1 ttl after it.
_SLOTS: Final = 10


class RetryBudget:
    """Requests earn retries: each one `ratio` of a retry, for `ttl` seconds; and some are there in any case.

    At no moment have there been, in the present window, more retries than `min_per_second`·ttl and `ratio` for each of
    the window's requests.
    """

    __slots__ = ("_config", "_requests", "_retries", "_slot", "_total_requests", "_total_retries")

    def __init__(self, config: BudgetConfig) -> None:
        self._config = config
        self._requests = [0] * _SLOTS
        self._retries = [0] * _SLOTS
        self._total_requests = 0
        self._total_retries = 0
        self._slot = 0

    def request(self, now: float) -> None:
        """A first attempt is made at `now` (seconds of a monotonic clock)."""
        self._move(now)
        self._requests[self._slot % _SLOTS] += 1
        self._total_requests += 1

    def retry(self, now: float) -> bool:
        """Whether one more attempt may be made at `now`; where it may, it is counted as made."""
        self._move(now)
        config = self._config
        if self._total_retries + 1 > config.ratio * self._total_requests + config.min_per_second * config.ttl:
            return False
        self._retries[self._slot % _SLOTS] += 1
        self._total_retries += 1
        return True

    def _move(self, now: float) -> None:
        slot = int(now / self._config.ttl * _SLOTS)
        # A clock that went back earns nothing and forgets nothing.
        if slot <= self._slot:
            return
        for passed in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            index = passed % _SLOTS
            self._total_requests -= self._requests[index]
            self._total_retries -= self._retries[index]
            self._requests[index] = self._retries[index] = 0
        self._slot = slot
