"""What a check is and what it finds: pass, warning, failure or skipped, in a line, with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

F_contra = TypeVar("F_contra", contravariant=True)

# Whoever has more than this to mend will run the check again.
MOST_ITEMS: Final = 100
# A line of a stranger's words: the name of a pod has 253 characters at most, and a namespace's 63.
_LONGEST_LINE: Final = 500


class Status(Enum):
    """What a check found. Only a failure changes the exit code."""

    PASS = "pass"  # noqa: S105  # no password
    WARNING = "warning"  # something optional is missing, or will be wrong soon
    FAILURE = "failure"
    SKIPPED = "skipped"  # it could not be found out, or does not apply; the detail says which


class Group(Enum):
    """What checks have in common; --only and --skip take these names, too."""

    MACHINE = "machine"
    CLUSTER = "cluster"
    BEFORE = "pre"
    CONTROL = "control-plane"
    WEBHOOK = "webhook"
    TRUST = "trust"
    DATA = "data-plane"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is, and what to do about it; `fix` is empty where nothing is to be done.

    `items` are what it is about, one line each (pods, namespaces, files), MOST_ITEMS at most.
    """

    status: Status
    detail: str
    fix: str = ""
    items: tuple[str, ...] = ()


class Unknown(Exception):
    """Something that a check needs could not be found out; the message says why, and the check is skipped."""


@dataclass(frozen=True, slots=True)
class Check(Generic[F_contra]):
    """One row: a name that stays the same for ever, what it is about, and how to judge the facts."""

    name: str
    group: Group
    about: str
    judge: Callable[[F_contra], Finding]

    def run(self, facts: F_contra) -> Finding:
        """Judge; what cannot be known is skipped."""
        try:
            return self.judge(facts)
        except Unknown as reason:
            return skipped(str(reason))


def passed(detail: str, items: Iterable[str] = ()) -> Finding:
    """All is well."""
    return Finding(Status.PASS, _line(detail), "", _bounded(items))


def warning(detail: str, fix: str, items: Iterable[str] = ()) -> Finding:
    """Something is not as it should be, and the mesh works all the same."""
    return Finding(Status.WARNING, _line(detail), fix, _bounded(items))


def failure(detail: str, fix: str, items: Iterable[str] = ()) -> Finding:
    """Something does not work, or is not safe."""
    return Finding(Status.FAILURE, _line(detail), fix, _bounded(items))


def skipped(reason: str) -> Finding:
    """It was not looked at."""
    return Finding(Status.SKIPPED, _line(reason))


def several(number: int, one: str, more: str = "") -> str:
    """A number with its word: "1 pod", "3 pods", "2 policies" (where `more` says how)."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def named(names: Sequence[str], most: int = 5) -> str:
    """Some names in a line, and how many there are beside them."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _bounded(items: Iterable[str]) -> tuple[str, ...]:
    lines = list(items)
    rest = [f"… and {len(lines) - MOST_ITEMS + 1} more"] if len(lines) > MOST_ITEMS else []
    return tuple(map(_line, lines[: MOST_ITEMS - len(rest)])) + tuple(rest)


def _line(text: str) -> str:
    """One line of a terminal: bounded, and without what a terminal would act on."""
    cut = text if len(text) <= _LONGEST_LINE else f"{text[: _LONGEST_LINE - 1]}…"
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in cut)
