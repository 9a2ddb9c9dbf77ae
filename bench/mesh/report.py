"""What was measured, as tables in Markdown: what was expected first, then every figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.mesh.expectations import EXPECTATIONS
from bench.mesh.measures import MEASURES
from bench.mesh.peers import Peer
from bench.mesh.rounds import ALONE, Results

BASE: Final = "envoy"
_FULL_BASE: Final = "envoy-full"


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    measure: str
    figure: str
    digits: int


@dataclass(frozen=True, slots=True)
class Session:
    """Where and how it was measured; every line of it stands above the tables."""

    title: str
    lines: Sequence[str]


def markdown(session: Session, peers: Sequence[Peer], results: Results) -> str:
    """The whole document."""
    parts = [f"# {session.title}", "\n".join(f"* {line}" for line in session.lines)]
    parts += ["## What was expected", _expectations(results)]
    for title, columns in _tables():
        parts += [f"## {title}", _table(peers, columns, results)]
    return "\n\n".join(parts) + "\n"


def _expectations(results: Results) -> str:
    rows = []
    for expected in EXPECTATIONS:
        found, spread = expected.found(results), expected.spread(results)
        bound = f"{'≤' if not expected.base else '≥'} {expected.limit:g}{expected.unit}"
        if found is None or spread is None:
            rows.append((expected.name, bound, "not measured", "—", "—"))
            continue
        verdict = "reached" if expected.is_reached_by(found) else "**not reached**"
        rows.append((expected.name, bound, f"{found:.2f}{expected.unit}", f"{spread[0]:.2f}–{spread[1]:.2f}", verdict))
    return _rows(("measure", "expected", "median of the rounds", "lowest and highest", ""), rows)


def _tables() -> Iterable[tuple[str, Sequence[_Column]]]:
    yield (
        "Bulk",
        [
            _Column(f"{title}, {streams}", f"bulk-{streams}", figure, digits)
            for title, figure, digits in (("GB/s", "gb_per_second", 2), ("CPU s/GB", "cpu_seconds_per_gb", 2))
            for streams in (1, 4)
        ],
    )
    for size in (64, 1024):
        for connections in (1, 32, 256):
            key = f"requests-{connections}-{size}"
            yield (
                f"Requests and answers of {size} B, {connections} connection{'s' if connections > 1 else ''}",
                [
                    _Column("requests/s", key, "requests_per_second", 0),
                    _Column("CPU µs each", key, "cpu_microseconds_per_request", 1),
                    _Column("p50 ms", key, "p50_ms", 3),
                    _Column("p99 ms", key, "p99_ms", 2),
                ],
            )
    for measure in MEASURES:
        if measure.kind == "connections":
            yield (
                measure.name.capitalize(),
                [
                    _Column("connections/s", measure.key, "connections_per_second", 0),
                    _Column("CPU µs each", measure.key, "cpu_microseconds_per_connection", 0),
                    _Column("p50 ms", measure.key, "p50_ms", 3),
                    _Column("p99 ms", measure.key, "p99_ms", 2),
                ],
            )
    yield (
        "Start and memory",
        [
            _Column("start to first echo, s", ALONE, "seconds_to_first_echo", 2),
            _Column("RSS of one side, idle, MiB", ALONE, "idle_rss_mib", 1),
            _Column("PSS of both, idle, MiB", ALONE, "idle_pss_mib", 1),
            _Column("PSS of both, 1,000 connections, MiB", ALONE, "connections_pss_mib", 1),
        ],
    )


def _table(peers: Sequence[Peer], columns: Sequence[_Column], results: Results) -> str:
    rows = []
    for peer in peers:
        cells = [_cell(peer, column, results) for column in columns]
        if any(cells):
            rows.append((peer.name, *cells))
    return _rows(("", *(column.title for column in columns)), rows)


def _cell(peer: Peer, column: _Column, results: Results) -> str:
    """The median, and the ratio to Envoy with the most that it can do."""
    median = results.median(column.measure, column.figure, peer.key)
    if median is None or (peer.commands is None and column.figure.startswith("cpu")):
        return ""
    base = _FULL_BASE if column.measure.startswith("full") else BASE
    ratio = results.ratio(column.measure, column.figure, peer.key, base)
    return f"{median:,.{column.digits}f}" + (f" ({ratio:.2f})" if ratio is not None else "")


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
