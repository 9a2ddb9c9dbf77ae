"""Checks a document against the shape that its kind has, field by field: whoever reads it afterwards can trust it.

A shape is a function of a value, the path where it stands and a Report. Istio's schemas are closed: a field that is not
known there is refused (by `kubectl` with strict validation) or thrown away (by the API server), and then the resource
says something else than its writer meant. Here it is an error. So is an explicit null, which the API server refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mesh.documents import Document, Path, Problem, Severity

if TYPE_CHECKING:
    from mesh.metadata import Metadata

_T = TypeVar("_T")

# Of one document: who sees twenty faults has enough to begin with.
_MOST_PROBLEMS: Final = 20


class Report:
    """What is wrong with one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._problems: list[Problem] = []
        self.errors = 0

    def error(self, path: Path, message: str) -> None:
        """The document says something that cannot be followed."""
        self.errors += 1
        self._add(path, message, "error")

    def warning(self, path: Path, message: str) -> None:
        """The document can be followed, and will probably not do what its writer meant."""
        self._add(path, message, "warning")

    def note(self, path: Path, message: str) -> None:
        """Something that its writer may want to know."""
        self._add(path, message, "note")

    def _add(self, path: Path, message: str, severity: Severity) -> None:
        # An error is never lost among warnings: those that are let go are the last of their own severity.
        if sum(problem.severity == severity for problem in self._problems) < _MOST_PROBLEMS:
            self._problems.append(self._document.problem(path, message, severity))

    def refused(self) -> bool:
        """Whether there was an error: the document cannot be read whole."""
        return self.errors > 0

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(self._problems)


Shape = Callable[[Any, Path, Report], None]
Reader = Callable[["Metadata", Mapping[str, Any], Report], _T]


def reader_of(shape: Shape) -> Callable[[Reader[_T]], Reader[_T | None]]:
    """Makes a reader of resources whose spec has `shape`: it is asked for those alone, and what it returns counts only
    where `report` holds no error then, either.
    """

    def decorate(read: Reader[_T]) -> Reader[_T | None]:
        @wraps(read)
        def read_whole(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> _T | None:
            shape(spec, ("spec",), report)
            if report.refused():
                return None
            resource = read(metadata, spec, report)
            return None if report.refused() else resource

        return read_whole

    return decorate


def shown(value: object) -> str:
    """A value of a stranger's, short and printable, for a sentence about it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


# Scalars


def text(
    *,
    choices: Sequence[str] = (),
    pattern: str = "",
    wanted: str = "text",
    least: int = 0,
    most: int | None = None,
) -> Shape:
    """Text: one of `choices`, or what `pattern` matches whole, of `least` to `most` characters."""
    compiled = re.compile(pattern) if pattern else None

    def check(value: Any, path: Path, report: Report) -> None:
        if not isinstance(value, str):
            quoted = f'; write "{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
            report.error(path, f"{shown(value)} stands where text is wanted{quoted}")
        elif choices and value not in choices:
            report.error(path, f"{shown(value)} is none of {', '.join(choices)}")
        elif len(value) < least:
            report.error(path, "must not be empty")
        elif most is not None and len(value) > most:
            report.error(path, f"{len(value)} characters are more than the {most} that are allowed")
        elif compiled is not None and not compiled.fullmatch(value):
            report.error(path, f"{shown(value)} is no {wanted}")

    return check


TEXT: Final = text()
WORDS: Final = text(least=1)


def boolean(value: Any, path: Path, report: Report) -> None:
    """`true` or `false`."""
    if not isinstance(value, bool):
        report.error(path, f"{shown(value)} is neither true nor false")


def integer(least: int = -(2**31), most: int = 2**31 - 1) -> Shape:
    """A whole number within limits; those of protobuf's int32 unless told."""

    def check(value: Any, path: Path, report: Report) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            report.error(path, f"{shown(value)} is no whole number")
        elif not least <= value <= most:
            report.error(path, f"{shown(value)} is not within {least} to {most}")

    return check


PORT: Final = integer(1, 65535)
COUNT: Final = integer(0, 2**32 - 1)  # protobuf's uint32


def number(least: float, most: float) -> Shape:
    """A number, whole or not, within limits."""

    def check(value: Any, path: Path, report: Report) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            report.error(path, f"{shown(value)} is no number")
        elif not least <= value <= most:  # also false for not-a-number
            report.error(path, f"{shown(value)} is not within {least:g} to {most:g}")

    return check


# Durations are written as Go does: "1h30m", "0.5s", "15ms".
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ms|us|µs|ns|h|m|s)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
# What Go's int64 of nanoseconds holds, 292 years, in seconds.
_LONGEST: Final = 2**63 / 1e9
# No schema of Istio's has a duration of more characters than this in an example by a factor of ten.
_LONGEST_TEXT: Final = 128


def seconds(duration: str) -> float:
    """The seconds that a duration in Go's notation stands for; ValueError for anything else, and for negative ones."""
    if duration == "0":
        return 0.0
    if len(duration) > _LONGEST_TEXT or not _DURATION.fullmatch(duration):
        raise ValueError(f"{shown(duration)} is no duration, as in 5s, 250ms or 1h30m")
    total = sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(duration))
    if total >= _LONGEST:
        raise ValueError(f"{shown(duration)} is longer than 292 years")
    return total


def duration(least: float = 0.001) -> Shape:
    """A duration of at least `least` seconds; Istio's schemas want a millisecond."""

    def check(value: Any, path: Path, report: Report) -> None:
        if not isinstance(value, str):
            report.error(path, f"{shown(value)} is no duration, as in 5s, 250ms or 1h30m")
            return
        try:
            length = seconds(value)
        except ValueError as error:
            report.error(path, str(error))
        else:
            if length < least:
                report.error(path, f"{shown(value)} is shorter than {least:g} s")

    return check


# Collections


def anything(_value: Any, _path: Path, _report: Report) -> None:
    """Whatever it is; it is not read."""


def fields(
    known: Mapping[str, Shape],
    *,
    required: Sequence[str] = (),
    at_most_one: Sequence[Sequence[str]] = (),
    nullable: Sequence[str] = (),
) -> Shape:
    """A map with fields that are known, and no others. Those in `nullable` may be null, which says nothing."""

    def check(value: Any, path: Path, report: Report) -> None:
        if not isinstance(value, Mapping):
            report.error(path, f"{shown(value)} stands where a map is wanted")
            return
        for name in value:
            shape = known.get(name)
            if shape is None:
                report.error((*path, name), f"is no field of this resource{meant(name, known)}")
            elif value[name] is not None:
                shape(value[name], (*path, name), report)
            elif name not in nullable:
                report.error((*path, name), "is null; leave it out where nothing is meant")
        for name in required:
            if name not in value:
                report.error((*path, name), "is missing")
        for group in at_most_one:
            given = [name for name in group if name in value]
            if len(given) > 1:
                report.error((*path, given[1]), f"only one of {', '.join(group)} can be set")

    return check


def meant(name: str, known: Iterable[str]) -> str:
    """The name in `known` that differs from `name` in case and punctuation alone, or by a plural s, in words."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower()).rstrip("s")
    for other in known:
        if re.sub(r"[^a-z0-9]", "", other.lower()).rstrip("s") == plain:
            return f"; did you mean {other}?"
    return ""


def list_of(item: Shape, *, least: int = 0, most: int | None = None) -> Shape:
    """A list of `least` to `most` items of one shape."""

    def check(value: Any, path: Path, report: Report) -> None:
        if not isinstance(value, list):
            report.error(path, f"{shown(value)} stands where a list is wanted")
            return
        if len(value) < least:
            report.error(path, "must not be empty")
        if most is not None and len(value) > most:
            report.error(path, f"{len(value)} items are more than the {most} that are allowed")
        for index, each in enumerate(value):
            item(each, (*path, index), report)

    return check


def map_of(item: Shape, *, key: Shape = anything) -> Shape:
    """A map whose keys are the writer's own."""

    def check(value: Any, path: Path, report: Report) -> None:
        if not isinstance(value, Mapping):
            report.error(path, f"{shown(value)} stands where a map is wanted")
            return
        for name in value:
            key(name, (*path, name), report)
            item(value[name], (*path, name), report)

    return check


def both(*shapes: Shape) -> Shape:
    """A value that must have each of several shapes; a later one is asked only where the earlier ones held."""

    def check(value: Any, path: Path, report: Report) -> None:
        before = report.errors
        for shape in shapes:
            if report.errors == before:
                shape(value, path, report)

    return check
