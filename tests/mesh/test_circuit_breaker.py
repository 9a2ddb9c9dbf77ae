"""Limits on what is under way, and the switch: what opens it, what closes it, and what says nothing about it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.circuit_breaker import UNLIMITED, BreakerConfig, BreakerState, CircuitBreaker, Pool, PoolLimits, Slots


class TestSlots:
    def test_there_are_as_many_places_as_the_limit_says_and_who_finds_none_is_counted(self) -> None:
        slots = Slots(2)

        assert [slots.take() for _ in range(4)] == [True, True, False, False]
        assert slots.overflows == 2

    def test_a_place_that_was_given_back_can_be_taken_again(self) -> None:
        slots = Slots(1)
        slots.take()
        slots.give()

        assert slots.take()

    def test_a_place_that_nobody_took_cannot_be_given_back(self) -> None:
        with pytest.raises(RuntimeError, match="nobody had taken"):
            Slots(1).give()


class TestPool:
    def test_each_kind_has_its_own_limit(self) -> None:
        pool = Pool(PoolLimits(max_connections=1, max_pending_requests=2, max_requests=3, max_retries=4))

        for slots, limit in ((pool.connections, 1), (pool.pending, 2), (pool.requests, 3), (pool.retries, 4)):
            assert [slots.take() for _ in range(limit + 1)] == [True] * limit + [False]

    def test_without_a_word_nothing_is_limited(self) -> None:
        assert PoolLimits().max_connections == PoolLimits().max_retries == UNLIMITED

    def test_lower_limits_cut_nothing_off_and_hold_for_what_comes(self) -> None:
        pool = Pool(PoolLimits(max_connections=3))
        for _ in range(3):
            pool.connections.take()

        pool.update(PoolLimits(max_connections=1))

        assert pool.connections.taken == 3
        pool.connections.give()
        pool.connections.give()
        assert not pool.connections.take()
        pool.connections.give()
        assert pool.connections.take()

    @pytest.mark.parametrize(
        ("limit", "served", "worn"), [(0, 10**9, False), (1, 0, False), (1, 1, True), (5, 4, False)]
    )
    def test_a_connection_is_worn_out_after_so_many_requests(self, limit: int, served: int, worn: bool) -> None:
        assert Pool(PoolLimits(max_requests_per_connection=limit)).worn_out(served) is worn

    @pytest.mark.parametrize("name", ["max_connections", "max_pending_requests", "max_requests", "max_retries"])
    @pytest.mark.parametrize("value", [0, -1, 2**32])
    def test_a_limit_out_of_bounds_is_refused_by_name(self, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=name):
            PoolLimits(**{name: value})

    def test_the_largest_and_the_smallest_limits_are_taken(self) -> None:
        assert PoolLimits(1, UNLIMITED, 1, UNLIMITED, UNLIMITED)
        assert BreakerConfig(failures=1, open_for=300.0, open_for_at_most=300.0, trials=1)

    def test_a_negative_number_of_requests_per_connection_is_refused(self) -> None:
        with pytest.raises(ValueError, match="max_requests_per_connection"):
            PoolLimits(max_requests_per_connection=-1)


CONFIG = BreakerConfig(failures=3, open_for=10.0, open_for_at_most=35.0)


def opened(now: float = 0.0, config: BreakerConfig = CONFIG) -> CircuitBreaker:
    breaker = CircuitBreaker(config)
    for _ in range(config.failures):
        breaker.failed(breaker.admit(now), now)
    return breaker


class TestBreaker:
    def test_failures_in_a_row_open_it(self) -> None:
        breaker = CircuitBreaker(CONFIG)
        for _ in range(2):
            breaker.failed(breaker.admit(0.0), 0.0)
        assert breaker.state(0.0) is BreakerState.CLOSED

        breaker.failed(breaker.admit(0.0), 0.0)

        assert breaker.state(0.0) is BreakerState.OPEN
        assert breaker.admit(9.999) == 0
        assert breaker.retry_after(4.0) == 6.0

    def test_a_success_between_them_does_not(self) -> None:
        breaker = CircuitBreaker(CONFIG)
        for _ in range(10):
            breaker.failed(breaker.admit(0.0), 0.0)
            breaker.failed(breaker.admit(0.0), 0.0)
            breaker.succeeded(breaker.admit(0.0))

        assert breaker.state(0.0) is BreakerState.CLOSED

    def test_after_its_time_one_trial_passes_and_its_success_closes_it(self) -> None:
        breaker = opened()
        assert breaker.state(10.0) is BreakerState.HALF_OPEN

        trial = breaker.admit(10.0)
        assert trial
        assert breaker.admit(10.0) == 0
        breaker.succeeded(trial)

        assert breaker.state(10.0) is BreakerState.CLOSED
        assert breaker.admit(10.0)

    def test_each_trial_that_fails_doubles_the_time_up_to_the_longest(self) -> None:
        breaker = opened()
        now = 0.0
        for open_for in (10.0, 20.0, 35.0, 35.0):
            assert breaker.admit(now + open_for - 0.001) == 0
            now += open_for
            trial = breaker.admit(now)
            assert trial
            breaker.failed(trial, now)

    def test_after_it_was_closed_the_time_is_the_first_again(self) -> None:
        breaker = opened()
        breaker.failed(breaker.admit(10.0), 10.0)
        breaker.succeeded(breaker.admit(30.0))
        for _ in range(3):
            breaker.failed(breaker.admit(31.0), 31.0)

        assert breaker.admit(40.999) == 0
        assert breaker.admit(41.0)

    def test_what_began_before_it_opened_says_nothing_about_the_trial(self) -> None:
        breaker = CircuitBreaker(CONFIG)
        slow = breaker.admit(0.0)
        for _ in range(3):
            breaker.failed(breaker.admit(0.0), 0.0)
        trial = breaker.admit(10.0)

        breaker.succeeded(slow)
        assert breaker.state(10.0) is BreakerState.HALF_OPEN
        breaker.failed(slow, 10.0)
        assert breaker.state(10.0) is BreakerState.HALF_OPEN
        breaker.succeeded(trial)
        assert breaker.state(10.0) is BreakerState.CLOSED

    def test_a_trial_that_was_abandoned_makes_room_for_another(self) -> None:
        breaker = opened()
        breaker.abandoned(breaker.admit(10.0))

        assert breaker.admit(10.0)

    def test_a_trial_that_is_never_reported_on_does_not_keep_it_half_open_for_ever(self) -> None:
        breaker = opened()
        lost = breaker.admit(10.0)
        assert breaker.admit(19.0) == 0

        assert breaker.admit(20.0)
        breaker.failed(lost, 20.0)
        assert breaker.state(20.0) is BreakerState.HALF_OPEN

    def test_several_trials_must_all_succeed(self) -> None:
        breaker = opened(config=BreakerConfig(failures=1, open_for=1.0, trials=2))
        first, second = breaker.admit(1.0), breaker.admit(1.0)
        assert breaker.admit(1.0) == 0

        breaker.succeeded(first)
        assert breaker.state(1.0) is BreakerState.HALF_OPEN
        breaker.succeeded(second)
        assert breaker.state(1.0) is BreakerState.CLOSED

    def test_a_trial_that_succeeded_makes_room_for_the_next(self) -> None:
        breaker = opened(config=BreakerConfig(failures=1, open_for=1.0, trials=2))
        breaker.succeeded(breaker.admit(1.0))

        assert breaker.admit(1.0)
        assert breaker.admit(1.0)
        assert breaker.admit(1.0) == 0

    def test_what_began_before_it_opened_makes_no_room_when_it_is_abandoned(self) -> None:
        breaker = CircuitBreaker(CONFIG)
        slow = breaker.admit(0.0)
        for _ in range(3):
            breaker.failed(breaker.admit(0.0), 0.0)
        assert breaker.admit(10.0)

        breaker.abandoned(slow)

        assert breaker.admit(10.0) == 0

    def test_its_time_is_counted_from_when_it_opened(self) -> None:
        breaker = opened(1000.0)

        assert breaker.state(1009.9) is BreakerState.OPEN
        assert breaker.state(1010.0) is BreakerState.HALF_OPEN

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"failures": 0}, "failures"),
            ({"trials": 0}, "trials"),
            ({"open_for": 0.0}, "open_for"),
            ({"open_for": 301.0}, "open_for_at_most"),
        ],
    )
    def test_a_configuration_that_makes_no_sense_is_refused_by_name(self, fields: dict[str, float], name: str) -> None:
        with pytest.raises(ValueError, match=name):
            BreakerConfig(**fields)  # type: ignore[arg-type]


class AnyUse(RuleBasedStateMachine):
    """However attempts come and end: an open switch opens again, and never lets more pass than it may."""

    def __init__(self) -> None:
        super().__init__()
        self.config = BreakerConfig(failures=2, open_for=5.0, open_for_at_most=20.0, trials=2)
        self.breaker = CircuitBreaker(self.config)
        self.now = 0.0
        self.tickets: list[int] = []
        self.trials: set[int] = set()

    @rule(step=st.floats(0, 8))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule()
    def attempt(self) -> None:
        before = self.breaker.state(self.now)
        if ticket := self.breaker.admit(self.now):
            assert before is not BreakerState.OPEN
            self.tickets.append(ticket)
            if before is BreakerState.HALF_OPEN:
                self.trials.add(ticket)
        else:
            assert before is not BreakerState.CLOSED

    @rule(end=st.sampled_from(["succeeded", "failed", "abandoned"]), data=st.data())
    def attempt_ends(self, end: str, data: st.DataObject) -> None:
        if not self.tickets:
            return
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        match end:
            case "succeeded":
                self.breaker.succeeded(ticket)
            case "failed":
                self.breaker.failed(ticket, self.now)
            case _:
                self.breaker.abandoned(ticket)

    @invariant()
    def trials_are_few(self) -> None:
        assert all(self.tickets.count(trial) <= self.config.trials for trial in self.trials)

    @invariant()
    def it_never_stays_shut_longer_than_the_longest_time(self) -> None:
        assert 0.0 <= self.breaker.retry_after(self.now) <= self.config.open_for_at_most
        assert self.breaker.state(self.now + self.config.open_for_at_most) is not BreakerState.OPEN


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
