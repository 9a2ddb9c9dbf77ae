"""The figures that matter most, a bar for each contender: an SVG, without a library."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from bench.mesh.peers import Peer
from bench.mesh.report import BASE
from bench.mesh.rounds import ALONE, Results

_PANELS: Final = (
    ("bulk, 4 streams, GB/s", "bulk-4", "gb_per_second"),
    ("CPU seconds per GB, 4 streams (less is better)", "bulk-4", "cpu_seconds_per_gb"),
    ("requests/s, 32 × 64 B", "requests-32-64", "requests_per_second"),
    ("CPU µs per request, 32 × 64 B (less is better)", "requests-32-64", "cpu_microseconds_per_request"),
    ("requests/s, 256 × 1 KB", "requests-256-1024", "requests_per_second"),
    ("new connections/s, 16 at a time", "connections-16", "connections_per_second"),
    ("PSS with 1,000 connections, MiB (less is better)", ALONE, "connections_pss_mib"),
)
_WIDTH: Final = 900
_LABEL: Final = 380
_BAR: Final = 18
_TITLE: Final = 34
_COLOURS: Final = {"ours": "#1f6f43", "ours-no-tunnels": "#5fa77f", BASE: "#8a4b16"}
_OTHERS: Final = "#9aa3ad"


def svg(peers: Sequence[Peer], results: Results) -> str:
    """One panel for each figure, one bar for each contender."""
    parts: list[str] = []
    top = 10
    for title, measure, figure in _PANELS:
        found = [
            (peer, value)
            for peer in peers
            if peer.commands is not None and (value := results.median(measure, figure, peer.key)) is not None
        ]
        if not found:
            continue
        parts.append(f'<text x="10" y="{top + 20}" font-weight="bold">{html.escape(title)}</text>')
        top += _TITLE
        longest = max(value for _, value in found)
        for peer, value in found:
            parts.append(_bar(peer, value, longest, top))
            top += _BAR + 4
        top += 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _bar(peer: Peer, value: float, longest: float, top: int) -> str:
    width = (_WIDTH - _LABEL - 90) * value / longest
    colour = _COLOURS.get(peer.key, _OTHERS)
    return (
        f'<text x="{_LABEL - 8}" y="{top + 14}" text-anchor="end">{html.escape(peer.name)}</text>'
        f'<rect x="{_LABEL}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
        f'<text x="{_LABEL + width + 6:.1f}" y="{top + 14}">{value:,.4g}</text>'
    )
