"""Times, spans and a stranger's words as they are written."""

from __future__ import annotations

import datetime

import pytest

from certmgr.wording import ends, rfc3339, safe, shown_time, span

_NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (11 * 3600 + 3599, "11 hours"),
        (47 * 3600 + 3599, "47 hours"),
        (48 * 3600, "2 days"),
        (729 * 86400, "729 days"),
        (3652 * 86400, "10 years"),
        (-3 * 86400, "3 days"),
    ],
)
def test_a_span_is_said_in_the_unit_that_a_person_would_choose(seconds: int, words: str) -> None:
    assert span(datetime.timedelta(seconds=seconds)) == words


def test_the_last_second_of_a_validity_is_still_one_of_it() -> None:
    second = datetime.timedelta(seconds=1)

    assert ends(_NOON, _NOON - second) == "ends in 1 second"
    assert ends(_NOON, _NOON) == "ends in 0 seconds"
    assert ends(_NOON, _NOON + second) == "ended 1 second ago"


def test_a_time_is_written_in_utc_whatever_its_zone() -> None:
    there = _NOON.astimezone(datetime.timezone(datetime.timedelta(hours=9)))

    assert shown_time(there) == "2030-05-17 12:00:00 UTC"
    assert rfc3339(there) == "2030-05-17T12:00:00Z"


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31mred", "left\u202eright", "\udcff", "tab\t"])
def test_what_a_terminal_would_act_on_is_escaped(text: str) -> None:
    assert safe(text).isprintable()
    assert safe(text).isascii()


def test_what_is_harmless_stays_and_what_is_long_is_cut() -> None:
    assert safe("CN=Zoë, O=Ωmega") == "CN=Zoë, O=Ωmega"
    assert len(safe("x" * 100_000)) < 2200
