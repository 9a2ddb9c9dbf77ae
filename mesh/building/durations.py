"""Durations as Istio writes them: "1.5s", "100ms", "1h30m"; at least a millisecond, and whole milliseconds."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from mesh.building.checks import refused

_NANOSECONDS: Final = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,  # the micro sign, U+00B5; Go, whose syntax this is, also reads
    "μs": 1_000,  # … the Greek letter, U+03BC
    "ns": 1,
}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|us|µs|μs|ns|m|s)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+\Z")
_MILLISECOND: Final = 1_000_000
# Go holds a duration in 64 bits of nanoseconds, which is 292 years.
_MOST: Final = (1 << 63) - 1
_LONGEST_TEXT: Final = 64
_ALLOWED: Final = (
    "a time of whole milliseconds, at least 1ms: a number of seconds, or text as in '1.5s', '100ms', '1h30m'"
)


def duration(argument: str, value: object, *, zero: bool = False) -> str:
    """Return a duration in Istio's spelling: text as it is, a number of seconds as text.

    With `zero`, none at all is a duration too ("0s"), where Istio reads it as "off".
    """
    if isinstance(value, str):
        nanoseconds, spelling = parse(value), value
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST / 1e9:
        # By way of its shortest decimal form: 0.1 is 100 ms, although no float is exactly a tenth.
        nanoseconds = Fraction(repr(value)) * _NANOSECONDS["s"]
        spelling = seconds(nanoseconds)
    else:
        raise refused(argument, value, _ALLOWED)
    if nanoseconds is None or nanoseconds % _MILLISECOND or not (nanoseconds or zero):
        raise refused(argument, value, _ALLOWED)
    return spelling


def parse(text: str) -> Fraction | None:
    """The nanoseconds of `text` in Go's syntax without a sign; None where it is none, or more than 292 years."""
    if text == "0":
        return Fraction(0)
    if len(text) > _LONGEST_TEXT or not _WHOLE.match(text):
        return None
    total = sum(
        (
            Fraction(number.strip(".") if number.endswith(".") else number) * _NANOSECONDS[unit]
            for number, unit in _PART.findall(text)
        ),
        Fraction(0),
    )
    return total if total <= _MOST else None


def seconds(nanoseconds: Fraction) -> str:
    """Nanoseconds as seconds with at most nine decimals, as Protocol Buffers spell a duration in JSON."""
    whole, rest = divmod(int(nanoseconds), _NANOSECONDS["s"])
    decimals = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{whole}{decimals}s"
