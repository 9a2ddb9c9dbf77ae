"""When to renew and how long to wait: pure functions of times and randomness."""

from __future__ import annotations

import datetime
import itertools
import statistics

import pytest

from proxy.renewal import (
    CLOCK_TOLERANCE,
    LONGEST_BACKOFF,
    LONGEST_RETRY_AFTER,
    SLICE,
    SPREAD,
    Backoff,
    schedule,
    share,
)

NOW = datetime.datetime(2030, 5, 17, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
SECOND = datetime.timedelta(seconds=1)


@pytest.mark.parametrize("instance", ["a", "b/0", "b/1", "pod-7f"])
@pytest.mark.parametrize("drawn", [0.0, 0.3, 0.999999])
def test_a_certificate_is_renewed_between_40_and_50_percent_of_its_life(instance, drawn):
    plan = schedule(NOW, NOW + 24 * HOUR, instance, drawn)
    assert 9.6 * HOUR <= plan.due - NOW <= 12 * HOUR
    assert plan.end - plan.due >= 12 * HOUR, "it would not outlive an authority that is away for twelve hours"
    assert not plan.is_due(plan.due - SECOND)
    assert plan.is_due(plan.due)


def test_instances_that_draw_the_same_number_are_spread_all_the_same():
    shares = sorted(share(f"pod-{number}/0", 0.25) for number in range(1000))
    assert all(0 <= one < 1 for one in shares)
    assert statistics.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert max(b - a for a, b in itertools.pairwise(shares)) < 0.02


def test_an_instance_does_not_come_at_the_same_share_each_time():
    assert share("pod", 0.1) != share("pod", 0.2)


@pytest.mark.parametrize("life", [-HOUR, datetime.timedelta(0), datetime.timedelta(milliseconds=1)])
def test_an_authority_that_gives_certificates_of_no_life_is_not_asked_without_a_pause(life):
    plan = schedule(NOW, NOW + life, "a", 0.5)
    assert not plan.is_due(NOW)
    assert plan.is_due(NOW + SECOND)


def test_a_wait_is_cut_into_slices_so_that_a_clock_that_was_set_is_noticed():
    plan = schedule(NOW, NOW + 24 * HOUR, "a", 0.5)
    assert plan.pause(NOW) == SLICE
    assert plan.pause(plan.due - SECOND) == 1.0
    assert plan.pause(plan.due + HOUR) == 0.0


def test_a_machine_that_slept_past_the_time_renews_when_it_wakes():
    plan = schedule(NOW, NOW + 24 * HOUR, "a", 0.5)
    assert plan.is_due(NOW + 100 * HOUR)
    assert plan.has_ended(NOW + 100 * HOUR)
    assert not plan.has_ended(plan.end)


def test_a_clock_that_went_back_makes_a_new_plan_but_a_small_correction_does_not():
    plan = schedule(NOW, NOW + 24 * HOUR, "a", 0.5)
    assert plan.is_due(NOW - CLOCK_TOLERANCE - SECOND)
    assert not plan.is_due(NOW - CLOCK_TOLERANCE)


def test_early_renewals_are_spread_over_minutes_and_never_later_than_planned():
    plan = schedule(NOW, NOW + 24 * HOUR, "a", 0.5)
    times = [plan.early(NOW + HOUR, f"pod-{number}", 0.1).due for number in range(200)]
    assert all(NOW + HOUR <= due <= NOW + HOUR + SPREAD for due in times)
    assert max(times) - min(times) > SPREAD * 0.9
    assert plan.early(plan.due + HOUR, "a", 0.5).due == plan.due


def test_early_renewals_of_short_certificates_leave_them_time():
    plan = schedule(NOW, NOW + 20 * SECOND, "a", 0.5)
    assert plan.early(NOW, "a", 0.999).due - NOW <= 2 * SECOND


def test_at_once_is_due_now():
    assert schedule(NOW, NOW + HOUR, "a", 0.5).at_once().is_due(NOW)


def test_waits_double_up_to_five_minutes_and_begin_anew_after_a_success():
    backoff = Backoff()
    assert [backoff.after_failure(1.0) for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    for _ in range(5000):
        assert backoff.after_failure(1.0) == LONGEST_BACKOFF
    backoff.after_success()
    assert backoff.after_failure(1.0) == 1


def test_waits_are_drawn_from_the_whole_range():
    waits = [Backoff(failures=9).after_failure(drawn / 100) for drawn in range(101)]
    assert waits == pytest.approx([LONGEST_BACKOFF * drawn / 100 for drawn in range(101)])


@pytest.mark.parametrize(
    ("asked", "waited"), [(None, 0.5), (0, 0.5), (-5, 0.5), (60, 60), (10_000_000, LONGEST_RETRY_AFTER)]
)
def test_the_authoritys_wish_is_kept_within_bounds(asked, waited):
    assert Backoff().after_failure(0.5, asked) == waited
