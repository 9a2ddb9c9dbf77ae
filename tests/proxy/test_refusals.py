"""Warnings at a bounded rate: what is held back is counted and said."""

from __future__ import annotations

import logging

import pytest

from proxy.refusals import BURST, RATE, RefusalLog


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def refusals(clock, caplog):
    caplog.set_level(logging.WARNING)
    return RefusalLog(clock)


def test_a_burst_is_said_one_by_one_and_a_flood_in_one_line(refusals, clock, caplog):
    for number in range(int(BURST) + 300):
        refusals.warn(lambda number=number: f"refused {number}")
    assert len(caplog.messages) == BURST
    refusals.sum_up()
    assert len(caplog.messages) == BURST
    clock.now += 1
    refusals.sum_up()
    assert caplog.messages[-1] == ("300 more refusals were not logged one by one; see qbitel_connections_refused_total")
    refusals.sum_up()
    assert len(caplog.messages) == BURST + 1


def test_the_sum_stands_in_front_of_the_next_line(refusals, clock, caplog):
    for _ in range(int(BURST) + 2):
        refusals.warn(lambda: "refused")
    clock.now += 1
    refusals.warn(lambda: "the next")
    assert caplog.messages[-2].startswith("2 more refusals")
    assert caplog.messages[-1] == "the next"


def test_over_a_long_flood_the_rate_is_bounded(refusals, clock, caplog):
    for _ in range(10_000):
        clock.now += 0.001
        refusals.warn(lambda: "refused")
    assert caplog.messages.count("refused") <= BURST + 10 * RATE


def test_a_line_that_is_held_back_is_not_even_made(refusals):
    for _ in range(int(BURST)):
        refusals.warn(lambda: "refused")
    refusals.warn(lambda: pytest.fail("it was made"))
