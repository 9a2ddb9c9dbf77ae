"""What a text with a wildcard matches.

The wildcard is Istio's: `*` alone is whatever is there, `*x` ends with x, `x*` starts with x; a star anywhere else is a
star. Lists of values are held so that one look at a hash table stands for all that have no wildcard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Texts:
    """Values of which one must match. `empty` says whether `*` matches the empty text too, as for headers it does."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    present: bool
    empty: bool = False

    @classmethod
    def of(cls, values: Iterable[str], *, empty: bool = False) -> Texts:
        """The values as a policy writes them."""
        exact, prefixes, suffixes, present = set(), [], [], False
        for value in values:
            if value == "*":
                present = True
            elif value.startswith("*"):
                suffixes.append(value[1:])
            elif value.endswith("*"):
                prefixes.append(value[:-1])
            else:
                exact.add(value)
        return cls(frozenset(exact), tuple(prefixes), tuple(suffixes), present, empty)

    @classmethod
    def exactly(cls, value: str) -> Texts:
        """This value, whose stars are stars."""
        return cls(frozenset({value}), (), (), present=False)

    def match(self, text: str) -> bool:
        """Whether one of the values matches `text`."""
        if text in self.exact or (self.present and (self.empty or text != "")):
            return True
        return bool(
            (self.prefixes and text.startswith(self.prefixes)) or (self.suffixes and text.endswith(self.suffixes))
        )


@dataclass(frozen=True, slots=True)
class Ends:
    """Texts that are one of `exact`, or begin and end as one of `ends` says: all that something matches, and others."""

    exact: frozenset[str]
    ends: frozenset[tuple[str, str]]
