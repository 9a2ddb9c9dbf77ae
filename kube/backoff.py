"""How long to wait before trying again: longer each time, and never in step with everybody else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

_uniform: Final = random.SystemRandom().uniform
# Beyond this many doublings nothing grows any more, whatever the two ends are.
_MAX_DOUBLINGS: Final = 32


class Backoff:
    """Delays in seconds that double from `first` to `longest`, each cut by a random part of up to its half."""

    def __init__(self, first: float, longest: float, uniform: Callable[[float, float], float] = _uniform) -> None:
        self._first = first
        self._longest = longest
        self._uniform = uniform
        self.failures = 0

    def failed(self) -> float:
        """Count one more failure in a row; return how long to wait, in seconds."""
        delay = min(self._longest, self._first * 2.0 ** min(self.failures, _MAX_DOUBLINGS))
        self.failures += 1
        return self._uniform(delay / 2, delay)

    def succeeded(self) -> None:
        """Begin again."""
        self.failures = 0
