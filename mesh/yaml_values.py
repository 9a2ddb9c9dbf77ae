"""YAML text → values of JSON's types, and the line of each field; whatever grows is bounded before it is there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml
from yaml import events

from mesh.plain_scalars import plain_scalar

Path = tuple[str | int, ...]

# libyaml's parser where PyYAML was built with it, thirty times faster; both give the same events.
_Loader: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
STRING_TAG: Final = "tag:yaml.org,2002:str"


@dataclass
class Fault(Exception):
    """One document cannot be read."""

    line: int
    message: str


@dataclass
class Stop(Exception):
    """Nothing more of the text is read."""

    line: int
    message: str


@dataclass(slots=True)
class Budget:
    """How many nodes may still come, over all documents of a text."""

    left: int

    def spend(self, nodes: int, line: int) -> None:
        self.left -= nodes
        if self.left < 0:
            raise Stop(line, "there are too many values, or aliases that multiply them (a YAML bomb)")


class Reader:
    """Builds values out of the parser's events, so that whatever grows is bounded before it is there."""

    def __init__(self, chunk: str, first_line: int, budget: Budget, depth: int) -> None:
        self._parser = _Loader(chunk)
        self._next = self._parser.get_event
        self._first_line = first_line
        self._budget = budget
        self._depth = depth
        self._anchors: dict[str, tuple[Any, int]] = {}  # name → value, and the nodes that it counts for
        self._lines: dict[Path, int] = {}

    def dispose(self) -> None:
        self._parser.dispose()

    def roots(self) -> Iterator[tuple[Any, dict[Path, int]]]:
        """Each document's value, with the lines of its fields."""
        self._next()  # the stream's start
        while isinstance(self._next(), events.DocumentStartEvent):
            self._anchors, self._lines = {}, {}
            event = self._next()
            self._lines[()] = self._line(event)
            yield self._value(event, ()), self._lines
            self._next()  # the document's end

    def _value(self, event: events.Event, path: Path) -> Any:
        if isinstance(event, events.AliasEvent):
            return self._alias(event)
        assert isinstance(event, events.NodeEvent)  # noqa: S101  # YAML's grammar
        before = self._budget.left
        self._budget.spend(1, self._line(event))
        if len(path) > self._depth:
            raise Fault(self._line(event), f"values within values, more than {self._depth} deep")
        value: Any
        if isinstance(event, events.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, events.MappingStartEvent):
            value = self._mapping(event, path)
        else:
            value = self._sequence(event, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, before - self._budget.left)
        return value

    def _alias(self, event: events.AliasEvent) -> Any:
        # An anchor is known once its value is whole: one that contains itself is unknown within.
        if event.anchor not in self._anchors:
            raise Fault(self._line(event), f"*{printable(event.anchor)} has no &anchor before it")
        value, nodes = self._anchors[event.anchor]
        self._budget.spend(nodes, self._line(event))
        return value

    def _scalar(self, event: events.ScalarEvent) -> Any:
        if event.tag not in {None, "!", STRING_TAG}:
            raise self._tagged(event)
        if event.tag is not None or not event.implicit[0]:
            return event.value
        value = plain_scalar(event.value)
        if isinstance(value, float) and not math.isfinite(value):
            raise Fault(self._line(event), f"{printable(event.value)} is no number that JSON knows; quote it")
        return value

    def _sequence(self, event: events.NodeEvent, path: Path) -> list[Any]:
        self._refuse_tag(event)
        items: list[Any] = []
        while not isinstance(item := self._next(), events.SequenceEndEvent):
            at = (*path, len(items))
            self._lines[at] = self._line(item)
            items.append(self._value(item, at))
        return items

    def _mapping(self, event: events.NodeEvent, path: Path) -> dict[str, Any]:
        self._refuse_tag(event)
        fields: dict[str, Any] = {}
        merged: dict[str, Any] | None = None
        while not isinstance(key_event := self._next(), events.MappingEndEvent):
            line = self._line(key_event)
            key = self._key(key_event)
            at = (*path, "<<" if key is _MERGE else str(key))
            value = self._value(self._next(), at)
            if key is _MERGE:
                if merged is not None:
                    raise Fault(line, "<< stands here twice; give it a list")
                merged = _merged(value, line)
                continue
            if key in fields:
                raise Fault(line, f"{printable(key)} stands here twice; the other is in line {self._lines[at]}")
            fields[str(key)] = value
            self._lines[at] = line
        if merged:
            fields = {**merged, **fields}  # what stands here itself wins over what comes from elsewhere
        return fields

    def _key(self, event: events.Event) -> str | object:
        """A field's name; JSON has strings alone, and Kubernetes makes one of a number or a boolean."""
        if not isinstance(event, events.ScalarEvent):
            raise Fault(self._line(event), "the name of a field is no plain string")
        if event.value == "<<" and event.implicit[0]:
            return _MERGE
        value = self._scalar(event)
        match value:
            case str():
                return value
            case bool():
                return "true" if value else "false"
            case int():
                return str(value)
        raise Fault(self._line(event), f"{told(value)} as the name of a field; quote it")

    def _refuse_tag(self, event: Any) -> None:
        if event.tag not in {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            raise self._tagged(event)

    def _tagged(self, event: Any) -> Fault:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        return Fault(self._line(event), f"the tag {printable(tag)} is not read; write the value itself")

    def _line(self, event: Any) -> int:  # PyYAML's types know no event that always has a mark; all of them have one
        line: int = self._first_line + event.start_mark.line
        return line


_MERGE: Final = object()


def _merged(value: Any, line: int) -> dict[str, Any]:
    """What `<<` brings: a map, or a list of maps of which the first wins."""
    sources = value if isinstance(value, list) else [value]
    fields: dict[str, Any] = {}
    for one in sources:
        if not isinstance(one, dict):
            raise Fault(line, "<< wants a map, or a list of maps")
        for key, its_value in one.items():
            fields.setdefault(key, its_value)
    return fields


def syntax_fault(error: yaml.YAMLError, chunk: str, first_line: int) -> Fault:
    """What the parser says of `chunk`, which starts at `first_line` of the text, as one line for its author."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark) is not None:
        lines = chunk.rstrip().split("\n")
        number = min(mark.line, len(lines) - 1)  # the end of the text is told as a line behind the last one
        text = lines[number]
        words = ", ".join(part for part in (error.context, error.problem) if part)
        if "\t" in text[: len(text) - len(text.lstrip())]:
            words = "a tab where YAML wants spaces"
        return Fault(first_line + number, f"no YAML: {words}")
    if isinstance(error, yaml.reader.ReaderError):
        before = chunk.partition(chr(error.character))[0]
        code = f"U+{error.character:04X}"
        return Fault(first_line + before.count("\n"), f"no YAML: {code} stands in no text; escape it within quotes")
    return Fault(first_line, f"no YAML: {' '.join(str(error).split())[:200]}")


def told(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case str():
            return "a string"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case list():
            return "a list"
    return "a map"


def printable(text: object) -> str:
    """Text of a stranger, fit for one line."""
    shortened = str(text)[:120]
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in shortened)
