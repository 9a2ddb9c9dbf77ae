"""Outlier detection: endpoints that keep failing are left out for a while, as Istio's outlierDetection says."""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Host = TypeVar("Host", bound=Hashable)

_DEFAULT_MAX_EJECTION: Final = 300.0  # Envoy's default of max_ejection_time, which Istio does not set
_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})


class Outcome(enum.Enum):
    """How an attempt ended, as far as it says something about the endpoint."""

    SUCCESS = enum.auto()  # an answer below 500; of a TCP connection: it stands
    SERVER_ERROR = enum.auto()  # 5xx, but …
    GATEWAY_ERROR = enum.auto()  # … 502, 503, 504
    LOCAL_FAILURE = enum.auto()  # no answer at all: refused, timed out, reset, its identity not the one expected
    CONNECTED = enum.auto()  # the connection stands, an answer is still to come (HTTP)

    @classmethod
    def of_status(cls, status: int) -> Outcome:
        """The outcome of an HTTP answer with this status."""
        if status < 500:
            return cls.SUCCESS
        return cls.GATEWAY_ERROR if status in _GATEWAY_ERRORS else cls.SERVER_ERROR


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """DestinationRule's `outlierDetection`, with Istio's defaults. 0 turns a count off; times are seconds.

    Without `split_external_local_origin_errors` a local failure counts as a gateway error (Envoy maps it to 503), and
    `consecutive_local_origin_failures` is not looked at.
    """

    consecutive_5xx_errors: int = 5
    consecutive_gateway_errors: int = 0
    consecutive_local_origin_failures: int = 5
    split_external_local_origin_errors: bool = False
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float | None = None  # None: 300 s, or base_ejection_time where that is longer
    max_ejection_percent: int = 10
    min_health_percent: int = 0

    def __post_init__(self) -> None:
        for name in ("consecutive_5xx_errors", "consecutive_gateway_errors", "consecutive_local_origin_failures"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (off) or more")
        for name in ("interval", "base_ejection_time"):
            # Istio's own bound on both.
            if not 0.001 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least one millisecond")
        for name in ("max_ejection_percent", "min_health_percent"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 100")
        if self.longest_ejection < self.base_ejection_time:
            raise ValueError(
                f"max_ejection_time is {self.max_ejection_time}; it must be at least base_ejection_time, "
                f"{self.base_ejection_time}"
            )

    @property
    def longest_ejection(self) -> float:
        """The time that no ejection exceeds, seconds."""
        if self.max_ejection_time is not None:
            return self.max_ejection_time
        return max(_DEFAULT_MAX_EJECTION, self.base_ejection_time)


class _Record:
    """What is remembered of one endpoint."""

    __slots__ = ("ejected_at", "errors", "gateway_errors", "local_failures", "multiplier")

    def __init__(self) -> None:
        self.errors = self.gateway_errors = self.local_failures = 0
        self.ejected_at: float | None = None
        # How many times the base an ejection lasts: one more with each, one less with each interval of good conduct.
        self.multiplier = 0

    def forget_failures(self) -> None:
        self.errors = self.gateway_errors = self.local_failures = 0


class Outliers(Generic[Host]):
    """Which endpoints of a destination are used. The owner reports every attempt and calls sweep() when it is due.

    Endpoints that are not known (they left while an attempt was under way) are ignored.
    """

    __slots__ = ("_available", "_config", "_ejected", "_records", "next_sweep")

    def __init__(self, config: OutlierDetection, hosts: Iterable[Host], now: float) -> None:
        self._config = config
        self._records: dict[Host, _Record] = {}
        self._ejected = 0
        self._available: tuple[Host, ...] = ()
        self.next_sweep = now + config.interval
        """When sweep() is due, seconds of the same clock."""
        self.update(hosts)

    @property
    def available(self) -> tuple[Host, ...]:
        """The endpoints to choose from, in the order in which they were given.

        All of them, where fewer than `min_health_percent` would be left: with most of them failing, the fault is more
        likely elsewhere, and the few that are left would be crushed (Envoy's panic threshold). With Istio's default, 0,
        that never happens; there may then be none, where `max_ejection_percent` allows for it.
        """
        return self._available

    @property
    def ejected(self) -> frozenset[Host]:
        """The endpoints that are ejected now, panic or not."""
        return frozenset(host for host, record in self._records.items() if record.ejected_at is not None)

    def update(self, hosts: Iterable[Host]) -> None:
        """The destination has these endpoints now; what is known of those that stay is kept."""
        known = self._records
        self._records = {host: known.get(host) or _Record() for host in hosts}
        self._ejected = len(self.ejected)
        self._choose_available()

    def report(self, host: Host, outcome: Outcome, now: float) -> bool:
        """Take note of how an attempt ended; True where the endpoint is ejected because of it."""
        record = self._records.get(host)
        if record is None or not self._is_too_much(record, outcome):
            return False
        # An ejected endpoint is still asked in a panic, and by what began earlier; it is not ejected twice.
        return record.ejected_at is None and self._eject(record, now)

    def _is_too_much(self, record: _Record, outcome: Outcome) -> bool:
        config = self._config
        split = config.split_external_local_origin_errors
        if outcome is Outcome.SUCCESS:
            record.forget_failures()
            return False
        if outcome is Outcome.CONNECTED:
            record.local_failures = 0
            return False
        if outcome is Outcome.LOCAL_FAILURE and split:
            record.local_failures += 1
            return record.local_failures == config.consecutive_local_origin_failures
        if split:
            record.local_failures = 0  # an answer, though a bad one, shows that the connection stood
        record.errors += 1
        too_many = record.errors == config.consecutive_5xx_errors
        if outcome is Outcome.SERVER_ERROR:
            record.gateway_errors = 0
            return too_many
        record.gateway_errors += 1
        return too_many or record.gateway_errors == config.consecutive_gateway_errors

    def _eject(self, record: _Record, now: float) -> bool:
        config = self._config
        record.forget_failures()
        # Envoy counts the one that is about to go. Of nine endpoints, 10 % are none.
        if 100 * (self._ejected + 1) > config.max_ejection_percent * len(self._records):
            return False
        record.ejected_at = now
        # Held where one more would change nothing, so that an endpoint that was bad for a day recovers in minutes.
        if record.multiplier * config.base_ejection_time < config.longest_ejection:
            record.multiplier += 1
        self._ejected += 1
        self._choose_available()
        return True

    def sweep(self, now: float) -> tuple[Host, ...]:
        """Take back those whose time is over, and return them. Does nothing before `next_sweep`."""
        if now < self.next_sweep:
            return ()
        self.next_sweep = now + self._config.interval
        back = tuple(host for host, record in self._records.items() if self._reform(record, now))
        if back:
            self._ejected -= len(back)
            self._choose_available()
        return back

    def _reform(self, record: _Record, now: float) -> bool:
        if record.ejected_at is None:
            record.multiplier = max(0, record.multiplier - 1)
            return False
        config = self._config
        lasts = min(config.base_ejection_time * record.multiplier, config.longest_ejection)
        if now - record.ejected_at < lasts:
            return False
        record.ejected_at = None
        record.forget_failures()  # else one more failure would do, where another count was nearly full
        return True

    def _choose_available(self) -> None:
        healthy = tuple(host for host, record in self._records.items() if record.ejected_at is None)
        panic = 100 * len(healthy) < self._config.min_health_percent * len(self._records)
        self._available = tuple(self._records) if panic else healthy
