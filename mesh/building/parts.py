"""What is the same for every part of a resource: checked when it is made, and a plain dict when it is asked."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from mesh.building import checks


class Part(ABC):
    """A part of a resource. Its dict is made once, from arguments that are checked then, and given out as copies."""

    __slots__ = ("_built",)
    _built: dict[str, Any]

    def __post_init__(self) -> None:
        # Subclasses are frozen dataclasses.
        object.__setattr__(self, "_built", copy.deepcopy(self._build()))

    @abstractmethod
    def _build(self) -> dict[str, Any]:
        """The dict, or ValueError."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies are made anew: what dataclasses put aside for a copy are the fields alone.
        return _made, (type(self), {field.name: getattr(self, field.name) for field in fields(self)})  # type: ignore[arg-type]  # as above

    def as_dict(self) -> dict[str, Any]:
        """A new dict with Istio's fields: dicts, lists, strings, numbers and booleans alone."""
        return copy.deepcopy(self._built)


def _made(kind: type[Part], arguments: dict[str, Any]) -> Part:
    return kind(**arguments)


P = TypeVar("P", bound=Part)


def part(argument: str, value: object, kind: type[P]) -> dict[str, Any]:
    """The dict of a part of the right kind."""
    if not isinstance(value, kind):
        raise checks.refused(argument, value, f"a {kind.__name__}")
    return value.as_dict()


def parts(argument: str, values: Sequence[P], kind: type[P], *, most: int = checks.MAX_ENTRIES) -> list[dict[str, Any]]:
    """The dicts of at least one part."""
    entries = checks.listed(argument, values, fewest=1, most=most)
    return [part(f"{argument}[{index}]", value, kind) for index, value in enumerate(entries)]
