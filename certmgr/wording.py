"""How times, spans and a stranger's words are written for people, and times for programs."""

from __future__ import annotations

import datetime
from typing import Final

# A SPIFFE id has at most 2048 bytes (mesh/spiffe.py); nothing that is meant to be read is longer.
_LONGEST_TEXT: Final = 2100


def safe(text: str) -> str:
    """Text of a stranger's on one line of a terminal: bounded, with nothing in it that a terminal would act on."""
    cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return cut if cut.isprintable() else ascii(cut)


def span(length: datetime.timedelta) -> str:
    """How long that is in the unit that a person would choose: "11 hours", "1 day", "9 years"; never negative."""
    seconds = int(abs(length).total_seconds())
    for unit, size, enough in _UNITS:
        if seconds >= enough:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


# A unit is used from twice itself on, so that "1 day" is not said of 47 hours.
_UNITS: Final = (
    ("year", 365 * 86400, 2 * 365 * 86400),
    ("day", 86400, 2 * 86400),
    ("hour", 3600, 2 * 3600),
    ("minute", 60, 2 * 60),
)


def shown_time(moment: datetime.datetime) -> str:
    """A time as people read it here: 2026-11-25 06:44:25 UTC."""
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def rfc3339(moment: datetime.datetime) -> str:
    """A time as programs read it: 2026-11-25T06:44:25Z."""
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def ends(moment: datetime.datetime, now: datetime.datetime) -> str:
    """ "ends in 11 hours", "ended 3 days ago": the last second is still a valid one (RFC 5280 §4.1.2.5)."""
    return f"ended {span(now - moment)} ago" if now > moment else f"ends in {span(moment - now)}"
