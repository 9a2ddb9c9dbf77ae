"""JSON objects of strangers: read in the one way on which everybody agrees, or refused (RFC 8259; RFC 7515 §4)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

# A string, or a bracket outside of one. A string that does not end goes to the end of the text: were it no match, the
# search would begin again at each quotation mark in it, and take a time that is quadratic.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


class NotStrict(ValueError):
    """The text is not one JSON object that means the same to every reader; the message says why, without the text."""


def load_object(text: bytes, depth: int) -> dict[str, Any]:
    """Return the JSON object in `text` (UTF-8), nested at most `depth` deep; raise NotStrict.

    Of two members of the same name readers take the first or the last, NaN is read by some, and a number that is out
    of a float's range becomes infinite: all three are refused, wherever in the text they are.
    """
    try:
        # Decoded here: json.loads would guess UTF-16 and UTF-32 from bytes (RFC 8259 §8.1 has UTF-8 only).
        source = text.decode("utf-8")
    except UnicodeDecodeError:
        raise NotStrict("it is not in UTF-8") from None
    if _deeper_than(depth, source):
        raise NotStrict(f"it is nested more than {depth} deep")
    try:
        value = json.loads(source, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except NotStrict:
        raise
    except ValueError:  # JSONDecodeError; and an integer of more digits than Python turns into a number
        raise NotStrict("it is not JSON") from None
    if not isinstance(value, dict):
        raise NotStrict("it is JSON but not an object")
    return value


def _deeper_than(depth: int, source: str) -> bool:
    """Whether brackets are open to more than `depth`: the parser itself recurses, on the stack of whoever calls."""
    if source.count("{") + source.count("[") <= depth:
        return False
    level = 0
    for found in _BRACKETS.finditer(source):
        bracket = found[0]
        if bracket in ("{", "["):
            level += 1
            if level > depth:
                return True
        elif bracket in ("}", "]"):
            level -= 1
    return False


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrict("a member is given twice")
    return members


def _no_constant(name: str) -> None:
    raise NotStrict(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise NotStrict("a number is out of range")
    return number
