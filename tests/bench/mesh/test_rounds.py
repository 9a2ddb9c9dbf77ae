"""The figures of the rounds, and what is made of them."""

from __future__ import annotations

import pytest

from bench.mesh.expectations import EXPECTATIONS, Expectation
from bench.mesh.measures import MEASURES
from bench.mesh.rounds import ALONE, Results


def of(ours: list[float], envoy: list[float]) -> Results:
    results = Results()
    for figure, peer, values in (("figure", "ours", ours), ("figure", "envoy", envoy)):
        for value in values:
            results.add("measure", peer, {figure: value})
    return results


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds_so_that_a_slow_round_is_slow_for_both() -> None:
    results = of([10, 1, 30], [5, 1, 10])

    assert results.ratio("measure", "figure", "ours", "envoy") == 2
    assert results.spread("measure", "figure", "ours", "envoy") == (1, 3)
    assert results.median("measure", "figure", "ours") == 10


def test_there_is_no_ratio_to_a_contender_that_was_missing() -> None:
    results = of([10, 20], [])

    assert results.ratio("measure", "figure", "ours", "envoy") is None
    assert results.spread("measure", "figure", "ours", "envoy") is None
    assert results.median("measure", "figure", "envoy") is None


def test_there_is_no_ratio_to_nothing() -> None:
    assert of([1.0], [0.0]).ratio("measure", "figure", "ours", "envoy") is None


@pytest.mark.parametrize(
    ("less_is_better", "ours", "envoy", "reached"),
    [(False, 12, 10, True), (False, 11, 10, False), (True, 10, 12, True), (True, 12, 10, False)],
)
def test_an_expectation_is_a_ratio_that_is_more_where_we_are_better(
    less_is_better: bool, ours: float, envoy: float, reached: bool
) -> None:
    expected = Expectation("x", 1.2, "measure", "figure", "ours", "envoy", less_is_better=less_is_better)

    found = expected.found(of([ours], [envoy]))

    assert found is not None
    assert expected.is_reached_by(found) is reached


def test_an_expectation_without_a_peer_is_a_bound_from_above() -> None:
    expected = Expectation("x", 56, "measure", "figure", "ours", "", unit=" MiB")

    assert expected.is_reached_by(56)
    assert not expected.is_reached_by(56.1)
    assert expected.spread(of([3, 1, 2], [])) == (1, 3)


def test_every_expectation_is_about_something_that_is_measured() -> None:
    measured = {measure.key for measure in MEASURES} | {ALONE}

    assert {expected.measure for expected in EXPECTATIONS} <= measured
