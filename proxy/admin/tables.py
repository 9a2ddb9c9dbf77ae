"""Answers of the admin port as a person reads them: columns for rows, indented lines for everything else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

# Columns of a table: heading, key, width at most. What is longer is cut in the middle: its ends tell most.
Column = tuple[str, str, int]
CONNECTIONS: Final[tuple[Column, ...]] = (
    ("DIRECTION", "direction", 9),
    ("SOURCE", "source", 47),
    ("DESTINATION", "destination", 47),
    ("PEER", "peer_identity", 60),
    ("GROUP", "group", 20),
    ("POLICY", "policy", 40),
    ("SENT", "bytes_sent", 14),
    ("RECEIVED", "bytes_received", 14),
    ("AGE", "age_s", 9),
    ("IDLE", "idle_s", 9),
    ("TUNNEL", "tunnel", 32),
    ("ID", "connection_id", 32),
)
TUNNELS: Final[tuple[Column, ...]] = (
    ("DIRECTION", "direction", 9),
    ("SOURCE", "source", 47),
    ("DESTINATION", "destination", 47),
    ("PEER", "peer_identity", 60),
    ("GROUP", "group", 20),
    ("RESUMED", "resumed", 7),
    ("STREAMS", "streams", 7),
    ("DRAINING", "draining", 8),
    ("AGE", "age_s", 9),
    ("IDLE", "idle_s", 9),
    ("ID", "connection_id", 32),
)


def table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> str:
    """`rows` under headings, as wide as what is in them; columns that all rows leave empty are left out."""
    cells = [[_cell(row.get(key), width) for _, key, width in columns] for row in rows]
    shown = [at for at in range(len(columns)) if not cells or any(row[at] != "-" for row in cells)]
    lines = [[columns[at][0] for at in shown], *([row[at] for at in shown] for row in cells)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(shown))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cell(value: object, width: int) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
    text = str(value)
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def outline(value: object) -> str:
    """`value` as indented lines of "name: value"."""
    return "\n".join(_lines(value, ""))


def _lines(value: object, indent: str) -> Iterator[str]:
    match value:
        case Mapping():
            for key, one in value.items():
                if isinstance(one, Mapping | list) and one:
                    yield f"{indent}{key}:"
                    yield from _lines(one, indent + "  ")
                else:
                    yield f"{indent}{key}: {_scalar(one)}"
        case list():
            for one in value:
                if isinstance(one, Mapping) and one:
                    first, *rest = _lines(one, "")
                    yield f"{indent}- {first}"
                    yield from (f"{indent}  {line}" for line in rest)
                else:
                    yield f"{indent}- {_scalar(one)}"
        case _:
            yield f"{indent}{_scalar(value)}"


def _scalar(value: object) -> str:
    if value is None or value in ([], {}, ""):
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
