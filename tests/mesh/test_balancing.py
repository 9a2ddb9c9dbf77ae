"""Balancers: shares by weight, the less loaded of two, nobody who is not available, and an answer for every subset."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.balancing import (
    LARGEST_WEIGHT,
    Algorithm,
    Endpoint,
    LeastRequest,
    Lot,
    PeakEwma,
    RoundRobin,
    WeightedRandom,
    make_balancer,
    usable_of,
)

RANDOM = st.floats(0, 1, exclude_max=True)
WEIGHTS = st.lists(st.integers(1, 100), min_size=1, max_size=12)


def endpoints(*weights: int) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{place}:80", weight) for place, weight in enumerate(weights)]


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same numbers in each run, and nothing secret


def grid(steps: int) -> list[float]:
    """Random numbers that cover 0.0 to 1.0 evenly, their lower halves too."""
    generator = seeded(7)
    return [(step + generator.random()) / steps for step in range(steps)]


class TestEveryAlgorithm:
    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_without_endpoints_there_is_no_choice(self, algorithm: Algorithm) -> None:
        balancer = make_balancer(algorithm)
        assert balancer.choose(0.5, 0.0) is None

        balancer.update(endpoints(1, 2), ())
        assert balancer.choose(0.5, 0.0) is None

    @pytest.mark.parametrize("algorithm", Algorithm)
    @given(weights=WEIGHTS, chosen=st.sets(st.integers(0, 11)), numbers=st.lists(RANDOM, min_size=1, max_size=20))
    def test_only_the_available_are_chosen(
        self, algorithm: Algorithm, weights: list[int], chosen: set[int], numbers: list[float]
    ) -> None:
        known = endpoints(*weights)
        available = {endpoint for place, endpoint in enumerate(known) if place in chosen}
        balancer = make_balancer(algorithm, start=numbers[0])
        balancer.update(known, available)

        for now, number in enumerate(numbers):
            choice = balancer.choose(number, float(now), b"key")
            assert choice in available if available else choice is None
            if choice is not None:
                choice.started()

    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_where_all_are_idle_and_alike_shares_follow_the_weights(self, algorithm: Algorithm) -> None:
        known = endpoints(1, 2, 5)
        for endpoint in known:
            endpoint.measured(1.0 * endpoint.weight, 0.0)  # as fast, each for its weight
        balancer = make_balancer(algorithm)
        balancer.update(known)

        counts = Counter(choice.address for number in grid(8000) if (choice := balancer.choose(number, 0.0)))

        for endpoint in known:
            assert counts[endpoint.address] == pytest.approx(1000 * endpoint.weight, rel=0.01)

    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_the_largest_random_number_has_its_endpoint_too(self, algorithm: Algorithm) -> None:
        for weights in ([1], [1, 1, 1], [3, LARGEST_WEIGHT - 3], [1, 2]):
            balancer = make_balancer(algorithm, start=1.0 - 2.0**-53)
            balancer.update(endpoints(*weights))

            assert balancer.choose(1.0 - 2.0**-53, 0.0) is not None


class TestRoundRobin:
    def test_equals_take_turns(self) -> None:
        balancer, known = RoundRobin(), endpoints(1, 1, 1)
        balancer.update(known)

        assert [balancer.choose(0.0, 0.0) for _ in range(7)] == [*known, *known, known[0]]

    def test_sidecars_that_start_together_start_at_different_places(self) -> None:
        known = endpoints(1, 1, 1, 1)
        firsts = []
        for start in (0.0, 0.25, 0.5, 0.75):
            balancer = RoundRobin(start)
            balancer.update(known)
            firsts.append(balancer.choose(0.0, 0.0))

        assert firsts == known

    @given(WEIGHTS, RANDOM, st.integers(1, 400))
    def test_at_any_time_each_has_had_its_share(self, weights: list[int], start: float, choices: int) -> None:
        balancer, known = RoundRobin(start), endpoints(*weights)
        balancer.update(known)
        counts = Counter(balancer.choose(0.0, 0.0) for _ in range(choices))

        for endpoint in known:
            share = endpoint.weight / sum(weights)
            assert abs(counts[endpoint] - choices * share) <= 1 + len(weights) * share

    def test_the_heavy_one_is_not_chosen_in_one_go(self) -> None:
        balancer, known = RoundRobin(), endpoints(5, 1, 1)
        balancer.update(known)
        sequence = [balancer.choose(0.0, 0.0) for _ in range(70)]

        assert max(len(run) for run in runs(sequence, known[0])) <= 4


def runs(sequence: Sequence[Endpoint | None], of: Endpoint) -> list[list[Endpoint]]:
    found: list[list[Endpoint]] = [[]]
    for endpoint in sequence:
        if endpoint is of:
            found[-1].append(of)
        else:
            found.append([])
    return found


class TestLeastRequest:
    @given(WEIGHTS, st.lists(st.integers(0, 50), min_size=12, max_size=12), RANDOM)
    def test_it_is_the_less_loaded_of_the_two_that_were_drawn(
        self, weights: list[int], active: list[int], number: float
    ) -> None:
        known = endpoints(*weights)
        for endpoint, count in zip(known, active, strict=False):
            endpoint.active = count
        balancer, lot = LeastRequest(), Lot(tuple(known))
        balancer.update(known)

        drawn = {lot.draw(number), lot.draw_other(number)}
        choice = balancer.choose(number, 0.0)

        assert choice in drawn
        assert choice is not None
        assert all(one is not None and choice.active / choice.weight <= one.active / one.weight for one in drawn)

    def test_the_fullest_stays_close_to_the_average_where_chance_alone_does_not(self) -> None:
        def fullest(balancer: LeastRequest | WeightedRandom) -> int:
            known, generator = endpoints(*[1] * 200), seeded(3)
            balancer.update(known)
            for _ in range(20_000):
                if choice := balancer.choose(generator.random(), 0.0):
                    choice.started()
            return max(endpoint.active for endpoint in known)

        assert fullest(LeastRequest()) <= 104
        assert fullest(WeightedRandom()) > 115


class TestPeakEwma:
    def test_the_slower_one_is_avoided(self) -> None:
        balancer, (fast, slow) = PeakEwma(), endpoints(1, 1)
        balancer.update((fast, slow))
        fast.measured(0.01, 0.0)
        slow.measured(0.1, 0.0)

        assert {balancer.choose(number, 0.0) for number in grid(50)} == {fast}

    def test_but_not_where_the_faster_one_has_that_much_more_to_do(self) -> None:
        balancer, (fast, slow) = PeakEwma(), endpoints(1, 1)
        balancer.update((fast, slow))
        fast.measured(0.01, 0.0)
        slow.measured(0.1, 0.0)
        fast.active = 10

        assert {balancer.choose(number, 0.0) for number in grid(50)} == {slow}

    def test_one_slow_answer_counts_at_once_and_is_forgotten_slowly(self) -> None:
        (endpoint,) = endpoints(1)
        for now in range(10):
            endpoint.measured(0.01, float(now))
        endpoint.measured(1.0, 10.0)
        assert endpoint.expected_latency(10.0) == 1.0

        endpoint.measured(0.01, 11.0)
        assert 0.85 < endpoint.expected_latency(11.0) < 0.95
        assert endpoint.expected_latency(21.0) < 0.4

    def test_a_faster_answer_counts_by_how_long_ago_the_last_one_was(self) -> None:
        (endpoint,) = endpoints(1)
        endpoint.measured(1.0, 0.0)
        endpoint.measured(0.25, 10.0)

        kept = math.exp(-1)  # after ten seconds
        assert endpoint.expected_latency(10.0) == pytest.approx(kept + 0.25 * (1 - kept))

    def test_many_fast_answers_in_one_moment_do_not_whitewash_a_slow_one(self) -> None:
        (endpoint,) = endpoints(1)
        endpoint.measured(1.0, 10.0)
        for _ in range(1000):
            endpoint.measured(0.001, 10.0)

        assert endpoint.expected_latency(10.0) == 1.0

    def test_of_whom_nothing_is_known_is_asked_once_and_then_not_before_it_has_answered(self) -> None:
        balancer, (known, new) = PeakEwma(), endpoints(1, 1)
        balancer.update((known, new))
        known.measured(0.5, 0.0)
        assert balancer.choose(0.1, 0.0) is new
        new.started()

        assert {balancer.choose(number, 0.0) for number in grid(50)} == {known}

    def test_a_clock_that_goes_back_changes_nothing_that_was_measured(self) -> None:
        (endpoint,) = endpoints(1)
        endpoint.measured(1.0, 100.0)
        endpoint.measured(0.5, 50.0)

        assert endpoint.expected_latency(50.0) == endpoint.expected_latency(100.0) == 1.0

    @given(st.lists(st.tuples(st.floats(0, 100), st.floats(-1, 1e6)), max_size=40), st.floats(0, 1e9))
    def test_what_is_expected_is_never_more_than_the_slowest_nor_less_than_nothing(
        self, measured: list[tuple[float, float]], now: float
    ) -> None:
        (endpoint,) = endpoints(1)
        for latency, time in measured:
            endpoint.measured(latency, time)

        assert 0.0 <= endpoint.expected_latency(now) <= max((latency for latency, _ in measured), default=0.0)


class TestLot:
    @given(WEIGHTS.filter(lambda weights: len(weights) > 1), RANDOM)
    def test_the_other_one_is_another_one(self, weights: list[int], number: float) -> None:
        lot = Lot(tuple(endpoints(*weights)))

        assert lot.draw(number) is not lot.draw_other(number)

    @pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 3)])
    def test_the_other_one_is_drawn_by_weight_among_the_rest(self, weights: tuple[int, ...]) -> None:
        known = endpoints(*weights)
        lot = Lot(tuple(known))
        generator = seeded(1)
        pairs = Counter(
            (lot.draw(number), lot.draw_other(number)) for number in (generator.random() for _ in range(30_000))
        )

        total = sum(weights)
        for first in known:
            for second in known:
                if first is not second:
                    expected = first.weight / total * second.weight / (total - first.weight)
                    assert pairs[first, second] == pytest.approx(30_000 * expected, rel=0.12)


class TestEndpoints:
    def test_no_more_can_end_than_had_started(self) -> None:
        (endpoint,) = endpoints(1)
        endpoint.started()
        endpoint.finished()

        with pytest.raises(RuntimeError, match="more has ended at"):
            endpoint.finished()

    @pytest.mark.parametrize("weight", [0, -1, 2**32])
    def test_a_weight_out_of_bounds_is_refused(self, weight: int) -> None:
        with pytest.raises(ValueError, match=f"the weight of a is {weight}"):
            Endpoint("a", weight)

    def test_weights_that_are_too_large_together_are_refused(self) -> None:
        with pytest.raises(ValueError, match="sum up"):
            usable_of(endpoints(LARGEST_WEIGHT, 1), None)

    def test_a_new_endpoint_expects_nothing(self) -> None:
        (endpoint,) = endpoints(1)

        assert (endpoint.expected_latency(5.0), endpoint.measured_at) == (0.0, -math.inf)
