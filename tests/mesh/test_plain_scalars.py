"""What a scalar without quotes means: as go-yaml v2 reads it, which is what kubectl uses."""

from __future__ import annotations

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.plain_scalars import plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")),
        *((word, False) for word in ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")),
        *((word, None) for word in ("", "~", "null", "Null", "NULL")),
        *((word, word) for word in ("yEs", "tRue", "oN", "nUll", "none", "None", "nil", "T", "F")),
    ],
)
def test_words_are_what_yaml_1_1_says_and_nothing_like_them_is(text: str, value: object) -> None:
    assert plain_scalar(text) is value or plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("8080", 8080),
        ("-1", -1),
        ("+1", 1),
        ("1_000", 1000),
        ("010", 8),
        ("0o10", 8),
        ("0b101", 5),
        ("0x1F", 31),
        ("-0x1F", -31),
        ("18446744073709551615", 18446744073709551615),
        ("-9223372036854775808", -9223372036854775808),
        ("18446744073709551616", 18446744073709551616.0),  # more than 64 bits: a float, as in Go
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("09", 9.0),  # no octal number, hence a float, as in Go
    ],
)
def test_numbers_are_those_of_go(text: str, value: float) -> None:
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("12:30", "1:2:3", "190:20:30"),  # sexagesimal only in YAML 1.1
        *("2026-01-31", "2026-01-31T10:00:00Z"),
        *(
            "10.0.0.1",
            "10.0.0.0/8",
            "1.2.3",
            "100m",
            "128Mi",
            "30s",
            "0x",
            "0b2",
            "0o8",
            "e3",
            "1e",
            "-",
            "+",
            ".",
            "--1",
        ),
        *("١", "1١", "*", "GET", "/*", "spiffe://a/b"),
    ],
)
def test_whatever_else_is_a_string(text: str) -> None:
    assert plain_scalar(text) == text


def test_what_is_no_finite_number_is_told_by_its_value() -> None:
    assert [plain_scalar(text) for text in (".inf", "+.INF", "-.Inf")] == [math.inf, math.inf, -math.inf]
    assert math.isnan(plain_scalar(".nan"))  # type: ignore[arg-type]


@given(st.text(alphabet=string.digits + "+-._eExXoObBabf", min_size=1, max_size=400))
def test_nothing_that_looks_like_a_number_makes_it_fail(text: str) -> None:
    assert isinstance(plain_scalar(text), str | int | float)


def test_a_number_without_end_takes_no_time() -> None:
    assert plain_scalar("9" * 1_000_000) == math.inf
    assert plain_scalar("0x" + "f" * 1_000_000) == "0x" + "f" * 1_000_000
