"""Numbers of one process that change far more often than anybody looks at them: kept here until somebody does.

prometheus_client takes a lock for each change, and every connection causes ten.
"""

from __future__ import annotations

from typing import Protocol


class Series(Protocol):
    """A counter or a gauge of prometheus_client."""

    def inc(self, amount: float) -> None: ...


class Gauge(Protocol):
    """A gauge of prometheus_client."""

    def set(self, value: float) -> None: ...


class Tally:
    """One series, whose changes are added up."""

    __slots__ = ("_series", "_unsaid")

    def __init__(self, series: Series) -> None:
        self._series = series
        self._unsaid: float = 0

    def inc(self, amount: float = 1) -> None:
        """Add `amount`, which is negative where a gauge falls."""
        self._unsaid += amount

    def settle(self) -> None:
        """Tell prometheus_client."""
        if self._unsaid:
            self._series.inc(self._unsaid)
            self._unsaid = 0


class Level:
    """One gauge that is set, of which the last value counts."""

    __slots__ = ("_gauge", "_now", "_said")

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._now = self._said = 0.0

    def set(self, value: float) -> None:
        """It is `value` from now on."""
        self._now = value

    def settle(self) -> None:
        """Tell prometheus_client."""
        if self._now != self._said:
            self._said = self._now
            self._gauge.set(self._now)
