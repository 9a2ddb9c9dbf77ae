"""Changes are kept until somebody looks, and told once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from proxy.tally import Level, Tally


class Told(list):
    """In place of a series: what it was told."""

    inc = set = list.append


def test_changes_are_added_up_and_told_once():
    counter = Counter("opened", "", registry=None)
    tally = Tally(counter)
    for _ in range(3):
        tally.inc()
    tally.inc(4)
    assert counter._value.get() == 0
    tally.settle()
    tally.settle()
    assert counter._value.get() == 7


def test_what_went_up_and_down_again_is_not_told_at_all():
    told = Told()
    tally = Tally(told)
    tally.inc()
    tally.inc(-1)
    tally.settle()
    assert told == []


def test_of_a_level_the_last_value_counts():
    gauge = Gauge("waiting", "", registry=None)
    level = Level(gauge)
    for value in (1, 2, 5):
        level.set(value)
    assert gauge._value.get() == 0
    level.settle()
    assert gauge._value.get() == 5
    level.set(0)
    level.settle()
    assert gauge._value.get() == 0


def test_a_level_that_has_not_changed_is_not_told_again():
    told = Told()
    level = Level(told)
    level.set(3)
    for _ in range(3):
        level.settle()
    assert told == [3]
