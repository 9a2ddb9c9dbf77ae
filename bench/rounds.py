"""Two contenders measured in turns, so that a noisy machine is noisy for both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

# Enough for a median that one slow round does not move; few enough for a minute in all.
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Comparison:
    """CPU seconds per unit of work, median over the rounds, and the median of the rounds' own ratios."""

    ours: float
    peer: float
    ratio: float


def cpu_seconds(work: Callable[[], None]) -> float:
    """CPU time of this process for one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(ours: Callable[[], None], peer: Callable[[], None], units: float) -> Comparison:
    """Run both in turns; `units` is the work of one call. The ratio is the peer's time over ours."""
    ours()
    peer()
    pairs = [(cpu_seconds(ours) / units, cpu_seconds(peer) / units) for _ in range(ROUNDS)]
    return Comparison(
        ours=statistics.median(pair[0] for pair in pairs),
        peer=statistics.median(pair[1] for pair in pairs),
        ratio=statistics.median(pair[1] / pair[0] for pair in pairs),
    )
