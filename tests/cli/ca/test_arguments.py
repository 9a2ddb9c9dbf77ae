"""The words of the command line, read one by one."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.ca import arguments


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (arguments.years, "30", 30),
        (arguments.hours, "9552", 9552),
        (arguments.days, "398", 398),
        (arguments.minutes, "10080", 10080),
        (arguments.serial, "0a:FF", 0x0AFF),
        (arguments.serial, "0xff", 255),
        (arguments.serial, "f" * 40, (1 << 160) - 1),
        (arguments.moment, "2030-05-17", datetime.datetime(2030, 5, 17, tzinfo=datetime.UTC)),
        (arguments.moment, "2030-05-17T12:00:00Z", datetime.datetime(2030, 5, 17, 12, tzinfo=datetime.UTC)),
        (arguments.moment, "2030-05-17T12:00:00+02:00", datetime.datetime(2030, 5, 17, 10, tzinfo=datetime.UTC)),
    ],
)
def test_what_is_right_is_read(read: Callable[[str], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (arguments.years, "31"),
        (arguments.hours, "9553"),
        (arguments.days, "399"),
        (arguments.minutes, "10081"),
        (arguments.serial, "0"),
        (arguments.serial, "-1"),
        (arguments.serial, "1_0"),
        (arguments.serial, "1" + "0" * 40),
        (arguments.serial, "f" * 5000),
        (arguments.moment, "tomorrow"),
        (arguments.moment, "0001-01-01T00:00:00+01:00"),
        (arguments.trust_domain, "Example.org"),
        (arguments.dns_name, "*.example.org"),
    ],
)
def test_what_is_wrong_is_one_line(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@given(st.text(max_size=60))
def test_any_text_is_a_serial_number_and_a_time_or_neither(text: str) -> None:
    for read in (arguments.serial, arguments.moment):
        try:
            assert read(text)
        except argparse.ArgumentTypeError as error:
            assert "is no" in str(error)
