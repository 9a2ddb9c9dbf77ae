"""Delays between tries."""

from __future__ import annotations

from kube.backoff import Backoff


def test_delays_double_up_to_the_longest_and_begin_again_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0, lambda _low, high: high)

    assert [backoff.failed() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.failures == 5
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.failed() == 0.5


def test_up_to_half_of_a_delay_is_left_to_chance() -> None:
    asked = []
    backoff = Backoff(1.0, 8.0, lambda low, high: asked.append((low, high)) or low)

    assert [backoff.failed(), backoff.failed()] == [0.5, 1.0]
    assert asked == [(0.5, 1.0), (1.0, 2.0)]


def test_a_thousand_failures_are_no_overflow() -> None:
    backoff = Backoff(1.0, 60.0)

    assert all(backoff.failed() <= 60.0 for _ in range(1100))
