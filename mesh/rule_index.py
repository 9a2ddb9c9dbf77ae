"""Rules made ready: each as tests of a View, filed under what they cannot match without.

Most rules name whom they are about, and most connections are of somebody else. A rule whose every source names
principals, accounts, namespaces or addresses (or, where a source does not, whose every operation names ports, hosts or
paths) is looked at only for those; all others are looked at for everybody but those whom their only source excludes.
What the index does not know (headers, methods, tokens, what stands between two wildcards) narrows a rule down and never
widens it, so that a rule may be looked at in vain, and none is missed.

Sets of rules are integers, bit n for rule n: a thousand rules are joined and taken away in a few nanoseconds each, and
the lowest bit is the first rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from mesh.addresses import Address, Blocks
from mesh.authorization import Action, Condition, Rule
from mesh.conditions import DIMENSIONS, Key, Mesh, Predicate, attribute, conditions_of
from mesh.facts import View
from mesh.matching import Ends, Texts

# A predicate, and the answers with which its condition does not hold.
Test = tuple[Predicate, tuple[bool | None, ...]]
Tests = tuple[Test, ...]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReadyRule(Generic[T]):
    """One rule: holds where one of `sources` and one of `operations` do; `meaning` is what its owner keeps by it."""

    sources: tuple[Tests, ...]
    operations: tuple[Tests, ...]
    keys: tuple[Key, ...] | None  # what it is filed under, each being enough; None: it is looked at for everybody …
    bars: tuple[Key, ...]  # … whom none of these excludes
    meaning: T

    def matches(self, view: View) -> bool:
        """Whether the rule holds for what `view` shows."""
        return _one_holds(self.sources, view) and _one_holds(self.operations, view)


def _one_holds(alternatives: tuple[Tests, ...], view: View) -> bool:
    for tests in alternatives:
        for predicate, fails in tests:
            if predicate(view) in fails:
                break
        else:
            return True
    return False


class NeverMatches(Exception):
    """An ALLOW rule has a part that cannot be decided: it allows nothing."""


def make_ready(rule: Rule, action: Action, mesh: Mesh, *, http: bool, meaning: T) -> ReadyRule[T]:
    """The rule as tests, for requests or (`http` False) for connections whose requests are not read.

    NeverMatches where it is an ALLOW rule with a part that is not understood, or that a connection does not have, in
    any of its alternatives; of other rules such parts are left out. Both are Istio's ways.
    """
    shared = [_part(condition, action, mesh, http=http) for condition in rule.conditions]
    of_sources = [part for part in shared if part is not None and part.of_source]
    of_operations = [part for part in shared if part is not None and not part.of_source]
    sources = _alternatives(map(conditions_of, rule.sources), of_sources, action, mesh, http=http)
    operations = _alternatives(map(conditions_of, rule.operations), of_operations, action, mesh, http=http)
    return ReadyRule(
        tuple(tuple(test for part in parts for test in part.tests) for parts in sources),
        tuple(tuple(test for part in parts for test in part.tests) for parts in operations),
        _keys(sources) or _keys(operations),
        _bars(sources) + _bars(operations),
        meaning,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """One condition, ready."""

    of_source: bool
    tests: Tests
    key: Key | None  # by its values
    bar: Key | None  # by its not- values


def _part(condition: Condition, action: Action, mesh: Mesh, *, http: bool) -> _Part | None:
    """The condition ready; None where it is left out."""
    known = attribute(condition.key)
    if known is None or (known.http and not http):
        if action is Action.ALLOW:
            raise NeverMatches
        return None
    # What is not known counts against an ALLOW rule, and for any other.
    unknown = (None,) if action is Action.ALLOW else ()
    tests: list[Test] = []
    if condition.values:
        tests.append((known.predicate(condition.values, mesh), (False, *unknown)))
    if condition.not_values:
        tests.append((known.predicate(condition.not_values, mesh), (True, *unknown)))
    bar = known.key(condition.not_values, mesh) if condition.not_values else None
    return _Part(
        known.of_source,
        tuple(tests),
        known.key(condition.values, mesh) if condition.values else None,
        # Ends match more than the values do: enough to look at a rule, too much to leave it out.
        bar if bar is None or not isinstance(bar.values, Ends) else None,
    )


def _alternatives(
    written: Iterable[tuple[Condition, ...]], shared: Sequence[_Part], action: Action, mesh: Mesh, *, http: bool
) -> list[list[_Part]]:
    """The parts of each alternative, those of `when` with each; one alternative where none is written."""
    found = [
        [part for part in (_part(condition, action, mesh, http=http) for condition in conditions) if part is not None]
        for conditions in written
    ]
    return [[*parts, *shared] for parts in found or [[]]]


# The narrower first, as DIMENSIONS has them.
_ORDER: Final = {name: place for place, name in enumerate(DIMENSIONS)}


def _keys(alternatives: Sequence[Sequence[_Part]]) -> tuple[Key, ...] | None:
    """For each alternative the narrowest key; None where one alternative has none."""
    keys = []
    for parts in alternatives:
        of_this = [part.key for part in parts if part.key is not None]
        if not of_this:
            return None
        keys.append(min(of_this, key=lambda key: _ORDER[key.dimension]))
    return tuple(keys)


def _bars(alternatives: Sequence[Sequence[_Part]]) -> tuple[Key, ...]:
    """What excludes the only alternative."""
    if len(alternatives) > 1:
        return ()
    return tuple(part.bar for part in alternatives[0] if part.bar is not None)


# A set of so many rules has half a kilobyte. Without an end, the sets of a hundred thousand rules would be gigabytes.
_BLOCK: Final = 4096


class RuleIndex(Generic[T]):
    """Rules in their order, and which of them match a view."""

    def __init__(self, rules: Sequence[ReadyRule[T]]) -> None:
        self._blocks = [_Block(rules[first : first + _BLOCK]) for first in range(0, len(rules), _BLOCK)]
        self._length = len(rules)

    def __len__(self) -> int:
        return self._length

    def first(self, view: View) -> T | None:
        """The meaning of the first rule that matches."""
        return next(self.all(view), None)

    def all(self, view: View) -> Iterator[T]:
        """The meanings of all rules that match, in their order."""
        for block in self._blocks:
            yield from block.all(view)


class _Block(Generic[T]):
    """Some of the rules, and which of them may match a view."""

    def __init__(self, rules: Sequence[ReadyRule[T]]) -> None:
        self._rules = tuple(rules)
        self._always = 0
        filed: dict[str, _Shelf] = {}
        barred: dict[str, _Shelf] = {}
        for number, rule in enumerate(rules):
            for key in rule.keys or ():
                filed.setdefault(key.dimension, _Shelf()).put(key.values, 1 << number)
            if rule.keys is None:
                self._always |= 1 << number
                for bar in rule.bars:
                    barred.setdefault(bar.dimension, _Shelf()).put(bar.values, 1 << number)
        self._filed = tuple((DIMENSIONS[dimension], shelf) for dimension, shelf in filed.items())
        self._barred = tuple((DIMENSIONS[dimension], shelf) for dimension, shelf in barred.items())

    def all(self, view: View) -> Iterator[T]:
        left = self._candidates(view)
        while left:
            lowest = left & -left
            left ^= lowest
            rule = self._rules[lowest.bit_length() - 1]
            if rule.matches(view):
                yield rule.meaning

    def _candidates(self, view: View) -> int:
        found = self._always
        for get, shelf in self._barred:
            # What is not known excludes nobody for certain.
            if (what := get(view)) is not None:
                found &= ~shelf.find(what)
        for get, shelf in self._filed:
            # What is not known is no reason to leave a rule out.
            found |= shelf.everything if (what := get(view)) is None else shelf.find(what)
        return found


class _Shelf:
    """Sets of rules, filed under texts (whole, or by how they begin or end) or blocks of addresses."""

    def __init__(self) -> None:
        self.everything = 0
        self._whole: dict[str, int] = {}
        self._begin: dict[int, dict[str, int]] = {}  # by length
        self._end: dict[int, dict[str, int]] = {}
        self._ends: dict[tuple[int, int], dict[tuple[str, str], int]] = {}  # by both lengths
        self._blocks: dict[tuple[int, int], dict[int, int]] = {}  # by version and bits behind the prefix

    def put(self, values: Texts | Blocks | Ends, rule: int) -> None:
        self.everything |= rule
        if isinstance(values, Blocks):
            for version, behind, front in values.blocks:
                fronts = self._blocks.setdefault((version, behind), {})
                fronts[front] = fronts.get(front, 0) | rule
            return
        for text in values.exact:
            self._whole[text] = self._whole.get(text, 0) | rule
        if isinstance(values, Ends):
            for begin, end in values.ends:
                of_lengths = self._ends.setdefault((len(begin), len(end)), {})
                of_lengths[begin, end] = of_lengths.get((begin, end), 0) | rule
            return
        for by_length, texts in ((self._begin, values.prefixes), (self._end, values.suffixes)):
            for text in texts:
                of_length = by_length.setdefault(len(text), {})
                of_length[text] = of_length.get(text, 0) | rule

    def find(self, what: str | Address) -> int:
        """The rules that are filed under something that `what` is, begins or ends with, or lies in."""
        found = 0
        if isinstance(what, tuple):
            version, number = what
            for (each, behind), fronts in self._blocks.items():
                if each == version:
                    found |= fronts.get(number >> behind, 0)
            return found
        found = self._whole.get(what, 0)
        for length, texts in self._begin.items():
            found |= texts.get(what[:length], 0)
        for length, texts in self._end.items():
            found |= texts.get(what[-length:], 0)
        for (begin, end), both in self._ends.items():
            found |= both.get((what[:begin], what[-end:] if end else ""), 0)
        return found
