"""The rounds: every contender in turn, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.mesh.measures import MEASURES, idle_connections
from bench.mesh.peers import Peer
from bench.mesh.processes import Failed, Pair
from bench.mesh.usage import memory_mib

# What is not a load but the contender by itself.
ALONE = "alone"
IDLE_CONNECTIONS = 1000
# What was freed after the last handshake is given back by then, and lazily made threads are there.
_SETTLE_SECONDS = 0.5

Say = Callable[[str], None]


@dataclass(slots=True)
class Results:
    """Every figure of every round: by measure, figure and contender, in the order of the rounds."""

    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, measure: str, peer: str, found: dict[str, float]) -> None:
        """The figures of one contender in one round."""
        for figure, value in found.items():
            self.values.setdefault(measure, {}).setdefault(figure, {}).setdefault(peer, []).append(value)

    def rounds(self, measure: str, figure: str, peer: str) -> list[float]:
        """One value for each round; none where it did not take part."""
        return self.values.get(measure, {}).get(figure, {}).get(peer, [])

    def median(self, measure: str, figure: str, peer: str) -> float | None:
        """Over the rounds."""
        rounds = self.rounds(measure, figure, peer)
        return statistics.median(rounds) if rounds else None

    def ratio(self, measure: str, figure: str, peer: str, base: str) -> float | None:
        """`peer` over `base`: the median of the rounds' own ratios."""
        pairs = list(zip(self.rounds(measure, figure, peer), self.rounds(measure, figure, base), strict=False))
        return (
            statistics.median([ours / theirs for ours, theirs in pairs]) if pairs and all(b for _, b in pairs) else None
        )

    def spread(self, measure: str, figure: str, peer: str, base: str) -> tuple[float, float] | None:
        """The lowest and the highest of the rounds' ratios."""
        ratios = [
            ours / theirs
            for ours, theirs in zip(
                self.rounds(measure, figure, peer), self.rounds(measure, figure, base), strict=False
            )
            if theirs
        ]
        return (min(ratios), max(ratios)) if ratios else None


def alone(peers: Sequence[Peer], folder: Path, application: int, rounds: int, results: Results, say: Say) -> None:
    """Start, memory when idle and with many idle connections: each contender with nobody else's processes beside it."""
    for number in range(rounds):
        for peer in peers:
            if peer.commands is None or peer.full_handshakes:
                continue
            say(f"start and memory, round {number + 1} of {rounds}: {peer.name}")
            with _named(peer), peer.started(folder, application) as pair:
                results.add(ALONE, peer.key, _alone(pair))


def _alone(pair: Pair) -> dict[str, float]:
    time.sleep(_SETTLE_SECONDS)
    found = {
        "seconds_to_first_echo": pair.seconds_to_first_echo,
        "idle_rss_mib": max(memory_mib([pid], "Rss") for pid in pair.pids),  # of one side, the larger
        "idle_pss_mib": memory_mib(pair.pids, "Pss"),  # of both sides
    }
    with idle_connections(pair, IDLE_CONNECTIONS):
        time.sleep(_SETTLE_SECONDS)
        found["connections_pss_mib"] = memory_mib(pair.pids, "Pss")
    return found


def together(
    peers: Iterable[Peer], folder: Path, application: int, rounds: int, seconds: float, results: Results, say: Say
) -> None:
    """All run; each measure goes round over all of them before the next."""
    with contextlib.ExitStack() as stack:
        running = []
        for peer in peers:
            with _named(peer):
                running.append((peer, stack.enter_context(peer.started(folder, application))))
        for number in range(rounds):
            for measure in MEASURES:
                say(f"round {number + 1} of {rounds}: {measure.name}")
                for peer, pair in running:
                    if peer.commands is None or peer.full_handshakes == measure.full_handshakes:
                        with _named(peer):
                            results.add(measure.key, peer.key, measure.take(pair, seconds))


@contextlib.contextmanager
def _named(peer: Peer) -> Iterator[None]:
    """A failure within is this contender's."""
    try:
        yield
    except Failed as failed:
        raise Failed(f"{peer.name}: {failed}") from failed
