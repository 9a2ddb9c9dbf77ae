"""Kubernetes' quantities (`100m`, `128Mi`), as far as two of them must be compared."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

# apimachinery's resource.Quantity: a decimal number, and a suffix or an exponent.
_QUANTITY: Final = re.compile(
    r"([0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(m|k|[MGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{1,2})?"
)
_DECIMAL: Final = {"": 0, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def quantity(text: str) -> Decimal | None:
    """How much `text` is, in cores or bytes; None where it is no quantity, or a negative one."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return number.scaleb(exponent)
