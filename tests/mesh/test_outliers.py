"""Outlier detection: who is ejected, for how long, and how many at most, by Istio's rules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.outliers import Outcome, OutlierDetection, Outliers

HOSTS = tuple("abcdefghij")
ALL = OutlierDetection(max_ejection_percent=100)


def outliers(config: OutlierDetection = ALL, hosts: tuple[str, ...] = HOSTS) -> Outliers[str]:
    return Outliers(config, hosts, 0.0)


def fail(
    found: Outliers[str], host: str, times: int, outcome: Outcome = Outcome.SERVER_ERROR, now: float = 0.0
) -> bool:
    return [found.report(host, outcome, now) for _ in range(times)][-1]


class TestWhoIsEjected:
    def test_five_server_errors_in_a_row_eject_an_endpoint(self) -> None:
        found = outliers()
        assert not fail(found, "a", 4)

        assert fail(found, "a", 1)

        assert found.ejected == {"a"}
        assert found.available == HOSTS[1:]

    def test_a_success_between_them_begins_the_count_anew(self) -> None:
        found = outliers()
        for _ in range(10):
            assert not fail(found, "a", 4)
            found.report("a", Outcome.SUCCESS, 0.0)

        assert not found.ejected

    def test_the_failures_of_others_do_not_count(self) -> None:
        found = outliers()
        for host in "abcde":
            fail(found, host, 4)

        assert not found.ejected

    def test_without_the_split_no_answer_counts_as_a_gateway_error(self) -> None:
        found = outliers(OutlierDetection(0, 3, 1, max_ejection_percent=100))
        assert not fail(found, "a", 2, Outcome.LOCAL_FAILURE)

        assert fail(found, "a", 1, Outcome.GATEWAY_ERROR)

    def test_a_server_error_that_is_no_gateway_error_ends_a_row_of_those(self) -> None:
        found = outliers(OutlierDetection(0, 2, max_ejection_percent=100))
        for outcome in (Outcome.GATEWAY_ERROR, Outcome.SERVER_ERROR) * 5:
            assert not found.report("a", outcome, 0.0)

    def test_gateway_errors_are_server_errors_too(self) -> None:
        assert fail(outliers(), "a", 5, Outcome.GATEWAY_ERROR)

    def test_with_the_split_local_failures_have_their_own_count(self) -> None:
        found = outliers(OutlierDetection(5, 5, 2, split_external_local_origin_errors=True, max_ejection_percent=100))
        fail(found, "a", 4)
        assert not fail(found, "a", 1, Outcome.LOCAL_FAILURE)

        assert fail(found, "a", 1, Outcome.LOCAL_FAILURE)

    @pytest.mark.parametrize("outcome", [Outcome.CONNECTED, Outcome.SUCCESS, Outcome.SERVER_ERROR])
    def test_with_the_split_whatever_shows_that_the_connection_stood_ends_a_row_of_local_failures(
        self, outcome: Outcome
    ) -> None:
        found = outliers(OutlierDetection(0, 0, 2, split_external_local_origin_errors=True, max_ejection_percent=100))
        for _ in range(5):
            assert not found.report("a", Outcome.LOCAL_FAILURE, 0.0)
            assert not found.report("a", outcome, 0.0)

    def test_a_connection_that_stands_does_not_make_up_for_bad_answers(self) -> None:
        found = outliers()
        for _ in range(4):
            found.report("a", Outcome.SERVER_ERROR, 0.0)
            found.report("a", Outcome.CONNECTED, 0.0)

        assert found.report("a", Outcome.SERVER_ERROR, 0.0)

    def test_a_count_of_zero_is_off(self) -> None:
        assert not fail(outliers(OutlierDetection(0, 0, 0, max_ejection_percent=100)), "a", 1000)

    def test_an_endpoint_that_has_left_is_ignored(self) -> None:
        found = outliers()
        found.update(HOSTS[1:])

        assert not fail(found, "a", 100)
        assert found.available == HOSTS[1:]

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            (200, Outcome.SUCCESS),
            (404, Outcome.SUCCESS),
            (499, Outcome.SUCCESS),
            (500, Outcome.SERVER_ERROR),
            (501, Outcome.SERVER_ERROR),
            (502, Outcome.GATEWAY_ERROR),
            (503, Outcome.GATEWAY_ERROR),
            (504, Outcome.GATEWAY_ERROR),
            (505, Outcome.SERVER_ERROR),
        ],
    )
    def test_a_status_says_how_an_attempt_ended(self, status: int, outcome: Outcome) -> None:
        assert Outcome.of_status(status) is outcome


class TestHowMany:
    def test_by_default_one_in_ten_may_be_ejected(self) -> None:
        found = outliers(OutlierDetection())
        fail(found, "a", 5)
        fail(found, "b", 5)

        assert found.ejected == {"a"}

    def test_of_fewer_than_ten_none_is_by_default(self) -> None:
        assert not fail(outliers(OutlierDetection(), HOSTS[:9]), "a", 100)

    def test_where_room_comes_up_the_next_row_of_failures_ejects(self) -> None:
        found = outliers(OutlierDetection())
        fail(found, "a", 5)
        fail(found, "b", 5)
        found.update((*HOSTS[1:], "k"))

        assert not fail(found, "b", 4)
        assert fail(found, "b", 1)

    def test_all_may_be_ejected_where_that_is_allowed_and_nothing_is_left(self) -> None:
        found = outliers()
        for host in HOSTS:
            fail(found, host, 5)

        assert found.available == ()

    def test_in_a_panic_all_are_used_again_though_they_stay_ejected(self) -> None:
        found = outliers(OutlierDetection(max_ejection_percent=100, min_health_percent=80))
        fail(found, "a", 5)
        fail(found, "b", 5)
        assert found.available == HOSTS[2:]

        fail(found, "c", 5)

        assert found.available == HOSTS
        assert found.ejected == {"a", "b", "c"}

    @given(
        st.integers(0, 100),
        st.integers(0, 100),
        st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from(Outcome), st.floats(0, 20)), max_size=200),
    )
    def test_never_more_than_the_share_is_ejected_and_what_is_left_is_the_rest_or_all(
        self, percent: int, health: int, reports: list[tuple[str, Outcome, float]]
    ) -> None:
        config = OutlierDetection(2, 2, 2, max_ejection_percent=percent, min_health_percent=health)
        found = outliers(config)
        now = 0.0
        for host, outcome, step in reports:
            now += step
            found.sweep(now)
            found.report(host, outcome, now)
            assert 100 * len(found.ejected) <= percent * len(HOSTS)
            rest = tuple(host for host in HOSTS if host not in found.ejected)
            assert found.available == (HOSTS if 100 * len(rest) < health * len(HOSTS) else rest)


class TestHowLong:
    def swept(self, found: Outliers[str], now: float) -> tuple[str, ...]:
        """What a sweep in each second up to `now` brings back."""
        back: tuple[str, ...] = ()
        while found.next_sweep <= now:
            back += found.sweep(found.next_sweep)
        return back

    def test_an_endpoint_comes_back_with_the_first_sweep_after_its_time(self) -> None:
        found = outliers()
        fail(found, "a", 5, now=1.0)

        assert self.swept(found, 30.0) == ()
        assert self.swept(found, 40.0) == ("a",)
        assert found.available == HOSTS

    def test_a_sweep_before_it_is_due_does_nothing(self) -> None:
        found = outliers(OutlierDetection(interval=10, base_ejection_time=1, max_ejection_percent=100))
        fail(found, "a", 5)

        assert found.sweep(9.999) == ()
        assert found.sweep(10.0) == ("a",)

    def test_it_comes_back_with_no_failure_held_against_it(self) -> None:
        found = outliers()
        fail(found, "a", 5)
        fail(found, "a", 4)
        self.swept(found, 40.0)

        assert not fail(found, "a", 4, now=40.0)

    def test_each_time_it_stays_out_longer_up_to_the_longest(self) -> None:
        found = outliers(
            OutlierDetection(interval=1, base_ejection_time=30, max_ejection_time=80, max_ejection_percent=100)
        )
        now = 0.0
        for lasts in (30, 60, 80, 80):
            assert fail(found, "a", 5, now=now)
            assert self.swept(found, now + lasts - 1) == ()
            assert self.swept(found, now + lasts) == ("a",)
            now += lasts

    def test_good_conduct_is_rewarded_interval_by_interval(self) -> None:
        found = outliers(OutlierDetection(interval=1, base_ejection_time=30, max_ejection_percent=100))
        fail(found, "a", 5, now=0.0)
        self.swept(found, 31.0)  # back with 30, one interval of good conduct with 31

        fail(found, "a", 5, now=31.0)

        assert self.swept(found, 60.0) == ()
        assert self.swept(found, 61.0) == ("a",)

    def test_one_that_was_bad_for_a_day_has_no_more_to_make_up_for_than_the_longest_time(self) -> None:
        found = outliers(
            OutlierDetection(interval=1, base_ejection_time=30, max_ejection_time=60, max_ejection_percent=100)
        )
        now = 0.0
        for _ in range(20):
            fail(found, "a", 5, now=now)
            now += 60
            self.swept(found, now)
        now += 2  # two intervals of good conduct
        self.swept(found, now)

        fail(found, "a", 5, now=now)

        assert self.swept(found, now + 29) == ()
        assert self.swept(found, now + 30) == ("a",)

    def test_one_that_came_back_makes_room_for_another(self) -> None:
        found = outliers(OutlierDetection())
        fail(found, "a", 5)
        self.swept(found, 40.0)

        assert fail(found, "b", 5, now=40.0)

    def test_the_shortest_times_are_taken(self) -> None:
        assert OutlierDetection(interval=0.001, base_ejection_time=0.001)

    def test_without_a_word_the_longest_time_is_five_minutes_or_the_base_where_that_is_longer(self) -> None:
        assert OutlierDetection().longest_ejection == 300
        assert OutlierDetection(base_ejection_time=600).longest_ejection == 600

    def test_an_endpoint_that_stays_through_an_update_keeps_its_record(self) -> None:
        found = outliers()
        fail(found, "a", 5)
        fail(found, "b", 4)
        found.update(("b", "a", "z"))

        assert found.available == ("b", "z")
        assert fail(found, "b", 1)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"consecutive_5xx_errors": -1}, "consecutive_5xx_errors"),
        ({"consecutive_gateway_errors": -1}, "consecutive_gateway_errors"),
        ({"consecutive_local_origin_failures": -1}, "consecutive_local_origin_failures"),
        ({"interval": 0}, "interval"),
        ({"interval": math.nan}, "interval"),
        ({"base_ejection_time": math.inf}, "base_ejection_time"),
        ({"max_ejection_percent": 101}, "max_ejection_percent"),
        ({"min_health_percent": -1}, "min_health_percent"),
        ({"max_ejection_time": 29.9}, "max_ejection_time"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_by_name(fields: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        OutlierDetection(**fields)  # type: ignore[arg-type]
