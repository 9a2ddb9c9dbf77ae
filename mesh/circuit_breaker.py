"""What a destination may be asked at once, and when it is left alone: Istio's connectionPool, and a circuit breaker.

Two things bear the name. Envoy's circuit breakers are limits on what is under way at one time (`PoolLimits`, `Pool`);
the other is the switch that opens after failures and tries again later (`CircuitBreaker`), which a proxy puts before a
destination that has no others to eject it in favour of (mesh/outliers.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

# What Istio sets where a DestinationRule sets nothing: as good as no limit.
UNLIMITED: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """DestinationRule's `trafficPolicy.connectionPool`: how much may be under way at one time."""

    max_connections: int = UNLIMITED  # tcp.maxConnections
    max_pending_requests: int = UNLIMITED  # http.http1MaxPendingRequests: those that wait for a connection
    max_requests: int = UNLIMITED  # http.http2MaxRequests
    max_retries: int = UNLIMITED  # http.maxRetries
    max_requests_per_connection: int = 0  # http.maxRequestsPerConnection: 0 is no limit, 1 is no keep-alive

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_pending_requests", "max_requests", "max_retries"):
            # Istio takes no zero here; a destination that nobody may reach is a matter of authorization.
            if not 1 <= getattr(self, name) <= UNLIMITED:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a whole number from 1 to {UNLIMITED}")
        if not 0 <= self.max_requests_per_connection <= UNLIMITED:
            raise ValueError(f"max_requests_per_connection is {self.max_requests_per_connection}; 0 is no limit")


class Slots:
    """A number of places; `overflows` counts who found none."""

    __slots__ = ("limit", "overflows", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.overflows = 0

    def take(self) -> bool:
        """Take a place; whoever gets True calls give() once, later."""
        if self.taken >= self.limit:
            self.overflows += 1
            return False
        self.taken += 1
        return True

    def give(self) -> None:
        """Give a place back; RuntimeError where none was taken, for then the count is worth nothing."""
        if self.taken == 0:
            raise RuntimeError("a place was given back that nobody had taken")
        self.taken -= 1


class Pool:
    """What is under way towards one destination, by kind. New limits hold for what comes; nothing is cut off."""

    __slots__ = ("connections", "limits", "pending", "requests", "retries")

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.connections = Slots(limits.max_connections)
        self.pending = Slots(limits.max_pending_requests)
        self.requests = Slots(limits.max_requests)
        self.retries = Slots(limits.max_retries)

    def update(self, limits: PoolLimits) -> None:
        """Take up changed limits."""
        self.limits = limits
        self.connections.limit = limits.max_connections
        self.pending.limit = limits.max_pending_requests
        self.requests.limit = limits.max_requests
        self.retries.limit = limits.max_retries

    def worn_out(self, requests_served: int) -> bool:
        """Whether a connection that has served so many requests is closed rather than used again."""
        limit = self.limits.max_requests_per_connection
        return limit != 0 and requests_served >= limit


class BreakerState(enum.Enum):
    """CLOSED lets everything pass, OPEN nothing, HALF_OPEN a few to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When the switch opens, for how long, and what closes it again. Times are seconds."""

    failures: int = 5  # in a row: Istio's consecutive5xxErrors
    open_for: float = 30.0  # Istio's baseEjectionTime; doubled each time that the trial fails …
    open_for_at_most: float = 300.0  # … up to this: Envoy's max_ejection_time
    trials: int = 1  # at once, while half open; as many successes in a row close it

    def __post_init__(self) -> None:
        for name in ("failures", "trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.open_for <= self.open_for_at_most:
            raise ValueError(
                f"open_for is {self.open_for}; it must be above 0 and at most open_for_at_most, {self.open_for_at_most}"
            )


class CircuitBreaker:
    """The switch before one destination.

        ticket = breaker.admit(now)
        if not ticket: …refuse…
        breaker.succeeded(ticket) or breaker.failed(ticket, now) or breaker.abandoned(ticket)

    A ticket is the number of the period in which it was given. What belongs to an earlier period says nothing about
    the present one and is not counted: a request that hung for a minute does not open what has closed meanwhile.
    """

    __slots__ = ("_config", "_failures", "_open_for", "_period", "_since", "_state", "_successes", "_trying")

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._state = BreakerState.CLOSED
        self._period = 1
        self._since = 0.0
        self._open_for = config.open_for
        self._failures = 0
        self._successes = 0
        self._trying = 0

    def state(self, now: float) -> BreakerState:
        """The state at `now` (seconds of a monotonic clock)."""
        if self._state is BreakerState.OPEN and now - self._since >= self._open_for:
            return BreakerState.HALF_OPEN
        return self._state

    def retry_after(self, now: float) -> float:
        """Seconds until admit() may let something pass again; 0.0 unless the switch is open."""
        if self._state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._since + self._open_for - now)

    def admit(self, now: float) -> int:
        """A ticket for one attempt, or 0 where it must not be made."""
        if self._state is BreakerState.CLOSED:
            return self._period
        if now - self._since >= self._open_for:
            # Out of OPEN; or out of a HALF_OPEN whose trials were never reported on, which must not last for ever.
            self._enter(BreakerState.HALF_OPEN, now)
        if self._state is BreakerState.OPEN or self._trying >= self._config.trials:
            return 0
        self._trying += 1
        return self._period

    def succeeded(self, ticket: int) -> None:
        """The attempt of `ticket` went well."""
        if ticket != self._period:
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._trying -= 1
            self._successes += 1
            if self._successes >= self._config.trials:
                self._open_for = self._config.open_for
                self._enter(BreakerState.CLOSED, self._since)

    def failed(self, ticket: int, now: float) -> None:
        """The attempt of `ticket` failed, through the destination's fault."""
        if ticket != self._period:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._open_for = min(2 * self._open_for, self._config.open_for_at_most)
            self._enter(BreakerState.OPEN, now)
            return
        self._failures += 1
        if self._failures >= self._config.failures:
            self._enter(BreakerState.OPEN, now)

    def abandoned(self, ticket: int) -> None:
        """The attempt of `ticket` ended without saying anything of the destination: the client went away."""
        if ticket == self._period and self._state is BreakerState.HALF_OPEN:
            self._trying -= 1

    def _enter(self, state: BreakerState, now: float) -> None:
        self._state = state
        self._period += 1
        self._since = now
        self._failures = self._successes = self._trying = 0
