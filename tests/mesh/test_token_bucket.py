"""Token buckets: the bound in any window, whatever the schedule and the clock, and keys that strangers choose."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.token_bucket import NANOSECONDS, RateLimit, TokenBucket, TokenBuckets

RATES = st.sampled_from(
    [Fraction(1, 3600), Fraction(1, 7), Fraction(1), Fraction(100), Fraction(2, 3), Fraction(10**6)]
)
BURSTS = st.integers(1, 20)
# In nanoseconds: steps of every size, and now and then a little back.
STEPS = st.one_of(
    st.just(0),
    st.integers(0, 3 * NANOSECONDS),
    st.integers(-NANOSECONDS // 100, 10_000),
    st.integers(0, 10**7).map(lambda step: step * NANOSECONDS),
)
SCHEDULES = st.lists(st.tuples(STEPS, st.integers(1, 5)), min_size=1, max_size=60)


def seconds(nanoseconds: int) -> float:
    """A float that the bucket reads back as the same nanosecond, where floats can tell it from its neighbours."""
    return (nanoseconds + 0.5) / NANOSECONDS if nanoseconds < 2**51 else float(nanoseconds) / NANOSECONDS


def read(time: float) -> int:
    return int(time * 1e9)


class TestOneBucket:
    @given(RATES, BURSTS, SCHEDULES)
    def test_no_window_has_more_than_the_burst_and_what_the_rate_gives_in_its_time(
        self, rate: Fraction, burst: int, schedule: list[tuple[int, int]]
    ) -> None:
        bucket = TokenBucket(RateLimit.per_second(rate, burst))
        now = 5 * NANOSECONDS
        taken: list[tuple[int, int]] = []
        for step, n in schedule:
            now = max(0, now + step)
            if bucket.take(seconds(now), n):
                taken.append((read(seconds(now)), n))

        for first, last in itertools.combinations_with_replacement(range(len(taken)), 2):
            window = max(0, taken[last][0] - taken[first][0])
            assert sum(n for _, n in taken[first : last + 1]) <= burst + rate * Fraction(window, NANOSECONDS)

    @given(RATES, BURSTS, SCHEDULES)
    def test_what_is_refused_would_have_broken_the_bound(
        self, rate: Fraction, burst: int, schedule: list[tuple[int, int]]
    ) -> None:
        """A bucket that refused everything would keep every bound: this one holds what is left, to the token."""
        bucket = TokenBucket(RateLimit.per_second(rate, burst))
        left, before, now = Fraction(burst), 5 * NANOSECONDS, 5 * NANOSECONDS
        for step, n in schedule:
            now += abs(step)
            time = read(seconds(now))
            left = min(Fraction(burst), left + rate * Fraction(max(0, time - before), NANOSECONDS))
            before = max(before, time)
            assert bucket.take(seconds(now), n) == (n <= left)
            left -= n if n <= left else 0

    @given(RATES, BURSTS, SCHEDULES, st.integers(1, 25))
    def test_whoever_waits_as_long_as_told_is_served(
        self, rate: Fraction, burst: int, schedule: list[tuple[int, int]], n: int
    ) -> None:
        bucket = TokenBucket(RateLimit.per_second(rate, burst))
        now = 5.0
        for step, taken in schedule:
            now = max(0.0, now + step / NANOSECONDS)
            bucket.take(now, taken)

        wait = bucket.wait(now, n)

        if n > burst:
            assert wait == math.inf
        else:
            assert (wait == 0.0) == bucket.take(now, n)
            # Not much before: two nanoseconds, and what a float of this size cannot tell apart.
            early = wait - 2.5e-9 - 4 * math.ulp(now + wait)
            assert early <= 0.0 or not bucket.take(now + early, n)
            assert wait == 0.0 or bucket.take(now + wait, n)

    def test_a_new_bucket_is_full_and_refills_to_its_burst_and_not_beyond(self) -> None:
        bucket = TokenBucket(RateLimit.per_second(1, 3))

        assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
        assert [bucket.take(10**6) for _ in range(4)] == [True, True, True, False]

    def test_a_clock_that_goes_back_gives_nothing_and_does_no_lasting_harm(self) -> None:
        bucket = TokenBucket(RateLimit.per_second(1, 1))

        assert bucket.take(100.0)
        assert not bucket.take(99.0)
        assert not bucket.take(100.5)
        assert bucket.take(101.0)

    def test_one_in_an_hour_is_exactly_that(self) -> None:
        bucket = TokenBucket(RateLimit.per_second(1 / 3600, 1))

        assert bucket.take(0.0)
        assert not bucket.take(3599.999999)
        assert bucket.take(3600.0)

    def test_half_a_token_a_second_is_not_rounded(self) -> None:
        bucket = TokenBucket(RateLimit(max_tokens=1, tokens_per_fill=1, fill_interval=2 * NANOSECONDS))

        assert sum(bucket.take(float(second)) for second in range(100)) == 50

    @pytest.mark.parametrize("n", [0, -1])
    def test_no_token_cannot_be_taken(self, n: int) -> None:
        with pytest.raises(ValueError, match=f"n is {n}"):
            TokenBucket(RateLimit(1)).take(0.0, n)
        with pytest.raises(ValueError, match=f"n is {n}"):
            TokenBuckets[str](RateLimit(1)).take("a", 0.0, n)


class TestLimits:
    @pytest.mark.parametrize(
        ("rate", "fill"),
        [
            (1 / 3600, (1, 3600)),
            (0.1, (1, 10)),
            (100, (100, 1)),
            (1e6, (10**6, 1)),
            (2.5, (5, 2)),
            (1e-6, (1, 10**6)),
            (2**32 - 1, (2**32 - 1, 1)),
        ],
    )
    def test_a_rate_of_a_float_is_the_fraction_that_was_meant(self, rate: float, fill: tuple[int, int]) -> None:
        limit = RateLimit.per_second(rate, 1)

        assert (limit.tokens_per_fill, limit.fill_interval) == (fill[0], fill[1] * NANOSECONDS)

    @pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, 1e-9, 1e12])
    def test_a_rate_that_is_none_is_refused_by_name(self, rate: float) -> None:
        with pytest.raises(ValueError, match="rate is"):
            RateLimit.per_second(rate, 1)

    @pytest.mark.parametrize("fields", [(1, 1, 1), (2**32 - 1, 2**32 - 1, 10**15)])
    def test_the_smallest_and_the_largest_numbers_work(self, fields: tuple[int, int, int]) -> None:
        bucket = TokenBucket(RateLimit(*fields))

        assert bucket.take(1.0, fields[0])
        assert not bucket.take(1.0)

    @pytest.mark.parametrize("fields", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (2**32, 1, 1), (1, 2**32, 1), (-1, 1, 1)])
    def test_a_limit_that_lets_nothing_pass_or_counts_beyond_envoy_s_numbers_is_refused(
        self, fields: tuple[int, int, int]
    ) -> None:
        with pytest.raises(ValueError, match="it must be"):
            RateLimit(*fields)


class TestManyKeys:
    @given(
        BURSTS,
        st.integers(1, 4),
        st.lists(st.tuples(st.integers(0, 7), st.integers(-20_000_000, 2 * NANOSECONDS)), max_size=150),
    )
    def test_the_limit_holds_for_each_key_however_few_places_there_are(
        self, burst: int, capacity: int, takes: list[tuple[int, int]]
    ) -> None:
        rate = Fraction(1)
        buckets = TokenBuckets[int](RateLimit.per_second(rate, burst), capacity)
        now = 5 * NANOSECONDS
        taken: dict[int, list[int]] = {}
        for key, step in takes:
            now = max(0, now + step)
            if buckets.take(key, seconds(now)):
                taken.setdefault(key, []).append(read(seconds(now)))
            assert len(buckets) <= capacity

        for times in taken.values():
            for first, last in itertools.combinations_with_replacement(range(len(times)), 2):
                window = max(0, times[last] - times[first])
                assert last - first + 1 <= burst + rate * Fraction(window, NANOSECONDS)

    @given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, NANOSECONDS)), max_size=100))
    def test_with_room_for_all_each_key_has_a_bucket_of_its_own(self, takes: list[tuple[int, int]]) -> None:
        limit = RateLimit.per_second(2, 3)
        together = TokenBuckets[int](limit, 8)
        alone = {key: TokenBucket(limit) for key in range(8)}
        now = 0
        for key, step in takes:
            now += step
            assert together.take(key, seconds(now)) == alone[key].take(seconds(now))

    def test_many_new_names_do_not_give_an_old_one_a_new_bucket(self) -> None:
        buckets = TokenBuckets[str](RateLimit.per_second(0.001, 2), 10)
        assert [buckets.take("greedy", 1.0) for _ in range(3)] == [True, True, False]

        for name in range(1000):
            buckets.take(f"stranger {name}", 1.0)

        assert not buckets.take("greedy", 1.0)

    def test_a_bucket_that_is_full_again_makes_room(self) -> None:
        buckets = TokenBuckets[str](RateLimit.per_second(1, 2), 2)
        for key in ("a", "b"):
            assert buckets.take(key, 0.0)

        assert [buckets.take("c", 1.0) for _ in range(3)] == [True, True, False]

    def test_no_place_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="capacity is 0"):
            TokenBuckets[str](RateLimit(1), 0)
