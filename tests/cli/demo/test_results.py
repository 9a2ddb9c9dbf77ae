from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.demo.results import Times, Transfer, percentile


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = list(range(1, 101))
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([7], 1) == percentile([7], 99) == 7


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float) -> None:
    assert percentile(values, percent) in values


def test_there_is_none_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_times_come_from_microseconds() -> None:
    assert Times.of_microseconds([1000, 3000, 2000]) == Times(3, 2.0, 3.0)


def test_throughput_counts_mib() -> None:
    assert Transfer(0, 256 << 20, 2.0, "", "").mib_per_second == 128
