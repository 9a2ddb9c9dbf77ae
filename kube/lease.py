"""Who leads, as arithmetic: what is read of a Lease and when, what to write, and until when one's own claim holds.

The rule is client-go's: whoever has seen a record unchanged for its whole duration, by his own clock, may take it; its
holder lets go before that, counted from before the renewal that succeeded was sent. So no two clocks are ever compared,
only the length of a second: they may differ by a tenth, which no clock that a kernel disciplines does (500 ppm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

# Seconds. A leader that is killed is replaced after DURATION at the latest; one that cannot renew stops after DEADLINE,
# which leaves a third for clocks that run differently and for what was decided just before. They are client-go's.
DURATION: Final = 15.0
DEADLINE: Final = 10.0
RETRY: Final = 2.0
# A record of somebody else's with a duration that makes no sense must not keep everybody out for ever.
_MAX_DURATION: Final = 600.0


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says: who holds it ("" nobody) and how long without renewal (seconds), and its version."""

    holder: str
    duration: float
    version: str


class Claim:
    """What one candidate knows; all times are seconds of its own steady clock, which counts suspended time too."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._record: Record | None = None
        self._first_seen = -math.inf
        self._until = -math.inf

    def saw(self, record: Record | None, now: float) -> None:
        """Take up what was read; `now` is after the answer came. None: there is no Lease."""
        if record != self._record:
            self._record = record
            self._first_seen = now

    def may_write(self, now: float) -> bool:
        """Whether to write our name into what was seen last: it is ours, nobody's, or its holder has let it lapse."""
        record = self._record
        if record is None or record.holder in ("", self.identity):
            return True
        return now >= self._first_seen + min(max(record.duration, 0.0), _MAX_DURATION)

    def wrote(self, record: Record, asked: float) -> None:
        """Our record was accepted; `asked` is before the request was sent."""
        self._record = record
        self._first_seen = asked
        self._until = asked + DEADLINE

    def let_go(self) -> None:
        """Lead no longer, whatever the Lease says."""
        self._until = -math.inf

    def leads(self, now: float) -> bool:
        """Whether nobody else can lead at this moment."""
        return now < self._until

    @property
    def record(self) -> Record | None:
        """What was seen or written last."""
        return self._record
