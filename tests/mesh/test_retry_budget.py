"""Retries: how often, after which pause, and how many in all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.retry_budget import BudgetConfig, ConcurrencyBudget, RetryBudget, RetryPolicy

ALMOST_ONE = 1.0 - 2.0**-53


class TestPolicy:
    def test_retries_are_as_many_as_the_policy_has_and_only_for_its_conditions(self) -> None:
        policy = RetryPolicy(attempts=2, retry_on=frozenset({"connect-failure"}))

        assert [policy.allows(retry, "connect-failure") for retry in (1, 2, 3)] == [True, True, False]
        assert not policy.allows(1, "5xx")

    def test_no_attempts_is_no_retry(self) -> None:
        assert not RetryPolicy(attempts=0).allows(1, "connect-failure")

    def test_pauses_grow_exponentially_from_the_base_and_stop_at_the_longest(self) -> None:
        policy = RetryPolicy(base_interval=0.025, max_interval=0.25)

        longest = [policy.pause(retry, ALMOST_ONE) for retry in range(1, 7)]

        assert longest == pytest.approx([0.025, 0.075, 0.175, 0.25, 0.25, 0.25])

    @given(st.integers(1, 10**9), st.floats(0, ALMOST_ONE))
    def test_a_pause_is_never_negative_nor_longer_than_the_longest(self, retry: int, random: float) -> None:
        assert 0.0 <= RetryPolicy().pause(retry, random) <= 0.25

    def test_the_random_number_spreads_the_pauses_evenly(self) -> None:
        pauses = [RetryPolicy().pause(1, step / 4) for step in range(4)]

        assert pauses == pytest.approx([0.0, 0.00625, 0.0125, 0.01875])

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"attempts": -1}, "attempts"),
            ({"per_try_timeout": 0.0}, "per_try_timeout"),
            ({"per_try_timeout": math.nan}, "per_try_timeout"),
            ({"base_interval": 0.0}, "base_interval"),
            ({"base_interval": 1.0}, "max_interval"),
            ({"max_interval": math.inf}, "max_interval"),
            ({"retry_on": frozenset({"5xx", "sometimes"})}, "sometimes"),
        ],
    )
    def test_a_policy_that_makes_no_sense_is_refused_by_name(self, fields: dict[str, object], name: str) -> None:
        with pytest.raises(ValueError, match=name):
            RetryPolicy(**fields)  # type: ignore[arg-type]

    def test_each_bound_is_the_last_that_is_taken(self) -> None:
        assert RetryPolicy(0, 0.001, frozenset({"100", "511"}), base_interval=0.25)
        assert ConcurrencyBudget(0, 0)
        assert ConcurrencyBudget(100)
        assert BudgetConfig(0, 0, 1)
        assert BudgetConfig(1000, 0, 60)

    @pytest.mark.parametrize("word", ["099", "600", "99", "0503", "5 3", "\u0665\u0660\u0663", ""])
    def test_what_is_no_status_is_no_condition(self, word: str) -> None:
        with pytest.raises(ValueError, match="retry_on"):
            RetryPolicy(retry_on=frozenset({word}))


class TestConcurrency:
    @pytest.mark.parametrize(
        ("retries", "requests", "allowed"),
        [(0, 0, True), (2, 0, True), (3, 0, False), (3, 15, False), (3, 16, True), (19, 100, True), (20, 100, False)],
    )
    def test_retries_are_a_share_of_what_is_under_way_and_a_few_in_any_case(
        self, retries: int, requests: int, allowed: bool
    ) -> None:
        assert ConcurrencyBudget(percent=20, min_concurrency=3).allows(retries, requests) is allowed

    @pytest.mark.parametrize(
        ("percent", "least", "name"), [(-1, 3, "percent"), (101, 3, "percent"), (20, -1, "min_concurrency")]
    )
    def test_a_budget_out_of_bounds_is_refused_by_name(self, percent: float, least: int, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            ConcurrencyBudget(percent, least)


class TestBudget:
    def test_requests_earn_retries(self) -> None:
        budget = RetryBudget(BudgetConfig(ratio=0.2, min_per_second=0))
        for _ in range(10):
            budget.request(0.0)

        assert [budget.retry(0.5) for _ in range(3)] == [True, True, False]

    def test_some_are_there_without_any_request(self) -> None:
        budget = RetryBudget(BudgetConfig(ratio=0.2, min_per_second=1, ttl=5))

        assert sum(budget.retry(0.0) for _ in range(20)) == 5

    def test_what_was_earned_is_forgotten_and_so_is_what_was_spent(self) -> None:
        budget = RetryBudget(BudgetConfig(ratio=1, min_per_second=0, ttl=10))
        budget.request(0.0)
        assert not RetryBudget(BudgetConfig(ratio=1, min_per_second=0)).retry(0.0)
        assert not budget.retry(10.0)

        budget = RetryBudget(BudgetConfig(ratio=0, min_per_second=0.1, ttl=10))
        assert [budget.retry(0.0), budget.retry(9.9), budget.retry(10.0)] == [True, False, True]

    def test_a_clock_that_goes_back_does_not_forget_what_was_spent(self) -> None:
        budget = RetryBudget(BudgetConfig(ratio=0, min_per_second=0.1, ttl=10))
        assert budget.retry(100.0)

        assert not budget.retry(50.0)

    def test_after_a_long_silence_the_window_is_empty(self) -> None:
        budget = RetryBudget(BudgetConfig(ratio=0, min_per_second=0.1, ttl=10))
        assert budget.retry(0.0)

        assert budget.retry(10.0**9)

    @given(
        st.floats(0, 2), st.floats(0, 3), st.lists(st.tuples(st.booleans(), st.floats(0, 4)), min_size=1, max_size=120)
    )
    def test_the_window_never_holds_more_retries_than_its_requests_and_its_time_earn(
        self, ratio: float, least: float, attempts: list[tuple[bool, float]]
    ) -> None:
        config = BudgetConfig(ratio, least, ttl=10)
        budget = RetryBudget(config)
        now = 0.0
        requests: list[int] = []
        retries: list[int] = []
        for is_retry, step in attempts:
            now += step
            slot = int(now / 10 * 10)
            if is_retry:
                earned = ratio * sum(one > slot - 10 for one in requests) + least * 10
                spent = sum(one > slot - 10 for one in retries)
                assert budget.retry(now) == (spent + 1 <= earned)
                if spent + 1 <= earned:
                    retries.append(slot)
            else:
                budget.request(now)
                requests.append(slot)

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"ratio": -0.1}, "ratio"),
            ({"ratio": 1001}, "ratio"),
            ({"min_per_second": -1}, "min_per_second"),
            ({"min_per_second": math.inf}, "min_per_second"),
            ({"ttl": 0.5}, "ttl"),
            ({"ttl": 61}, "ttl"),
        ],
    )
    def test_a_budget_that_makes_no_sense_is_refused_by_name(self, fields: dict[str, float], name: str) -> None:
        with pytest.raises(ValueError, match=name):
            BudgetConfig(**fields)
