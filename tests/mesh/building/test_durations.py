"""Durations in Istio's spelling."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.building.durations import duration, parse, seconds


@pytest.mark.parametrize(
    "text", ["1ms", "1.5s", "100ms", "1h30m", "0.5h", "1000us", "1000000ns", "1s1ms", ".5s", "1.s", "1000µs"]
)
def test_text_in_go_s_syntax_is_kept_as_it_is(text: str) -> None:
    assert duration("timeout", text) == text


@pytest.mark.parametrize(
    ("value", "spelling"),
    [(1, "1s"), (0.1, "0.1s"), (2.5, "2.5s"), (0.001, "0.001s"), (3600, "3600s"), (1e-3, "0.001s"), (1e6, "1000000s")],
)
def test_numbers_are_seconds(value: float, spelling: str) -> None:
    assert duration("timeout", value) == spelling


@pytest.mark.parametrize(
    "value",
    [
        *("", "1", "1 s", "s", "-1s", "+1s", "1d", "1S", "1.5.5s", ".s", "1s ", "1ms\n", "٣s", "∞", "1e3s", "0s", "0"),
        *("999us", "1.5ms", "1ns", "300y", "9999999999999h", "1" * 5000 + "s", "1s" * 40),
        *(0, -1, 0.0001, float("nan"), float("inf"), True, None, b"1s", 1e300, [1]),
    ],
)
def test_what_istio_would_refuse_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^timeout: .* whole milliseconds, at least 1ms"):
        duration("timeout", value)


@pytest.mark.parametrize(("value", "spelling"), [("0s", "0s"), (0, "0s"), (0.0, "0s"), ("0", "0")])
def test_none_at_all_is_a_duration_where_it_means_off(value: object, spelling: str) -> None:
    assert duration("idle_timeout", value, zero=True) == spelling


@given(st.integers(1, 10**12))
def test_seconds_say_exactly_what_parse_reads(milliseconds: int) -> None:
    nanoseconds = Fraction(milliseconds * 10**6)

    assert parse(seconds(nanoseconds)) == nanoseconds
    assert duration("timeout", seconds(nanoseconds)) == seconds(nanoseconds)


@given(st.text(st.sampled_from("0123456789.hmsunµ -+e"), max_size=20))
@example("1h1m1s1ms1us1µs1ns")
def test_any_text_is_read_or_not_and_never_raises_anything_else(text: str) -> None:
    found = parse(text)

    assert found is None or 0 <= found < 1 << 63
