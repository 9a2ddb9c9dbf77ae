"""What a YAML scalar without quotes means to Kubernetes, which is not what it means to PyYAML.

`kubectl` and the API server read by sigs.k8s.io/yaml: go-yaml v2 (its resolve.go: nearly YAML 1.1), then JSON's types.
So `on`, `y` and `no` are booleans, `010` and `0o10` are 8, `1e3` is a number; `12:30` and `2026-01-31` are strings.
"""

from __future__ import annotations

import math
import re
from typing import Final


def _spellings(*words: str) -> list[str]:
    return [spelt for word in words for spelt in (word, word.capitalize(), word.upper())]


_WORDS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(_spellings("y", "yes", "true", "on"), True),
    **dict.fromkeys(_spellings("n", "no", "false", "off"), False),
    **dict.fromkeys(["", "~", *_spellings("null")], None),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], math.nan),
    **dict.fromkeys([sign + word for sign in ("", "+") for word in (".inf", ".Inf", ".INF")], math.inf),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], -math.inf),
}
_FIRST_OF_NUMBERS: Final = frozenset("+-.0123456789")
_INTEGER: Final = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|([1-9][0-9]*|0))")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# No integer of 64 bits has more digits, in whatever base, signs and prefixes aside.
_MOST_DIGITS: Final = 64


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What `text` is without quotes to Kubernetes; a number outside of 64 bits is a float, as there."""
    if text in _WORDS:
        return _WORDS[text]
    if not text or text[0] not in _FIRST_OF_NUMBERS:
        return text
    plain = text.replace("_", "")
    if (match := _INTEGER.fullmatch(plain)) and len(plain) <= _MOST_DIGITS + 3:
        sign, *digits = match.groups()
        number = next(int(found, base) for found, base in zip(digits, (16, 2, 8, 10), strict=True) if found)
        number = -number if sign == "-" else number
        if -(1 << 63) <= number < 1 << 64:
            return number
    return float(plain) if _FLOAT.fullmatch(plain) else text
