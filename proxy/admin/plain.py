"""A configuration as JSON can hold it: every field under its name, and nothing that is a secret or a program. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
from enum import Enum
from pathlib import Path
from typing import Any

from pqtls import Profile
from proxy.config import Endpoint


def plain(value: object) -> Any:
    """`value` as dictionaries, lists, strings and numbers. Fields that are shown to nobody (repr=False) are left out.

    Functions are left out too; whatever else is not known here is shown by its type alone.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Endpoint() | Path() | ipaddress.IPv4Network() | ipaddress.IPv6Network():
            return str(value)
        case Profile():
            return value.name
        case Enum():
            return value.value
        case dict():
            return {str(plain(key)): plain(one) for key, one in value.items()}
        case frozenset() | set():
            return sorted((plain(one) for one in value), key=str)
        case list() | tuple():
            return [plain(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.repr and not callable(getattr(value, field.name))
        }
    return f"<{type(value).__name__}>"
