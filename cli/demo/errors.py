"""How the demo fails on purpose."""

from __future__ import annotations

from collections.abc import Sequence


class CannotIsolateError(Exception):
    """This machine does not let us make pods out of namespaces; the message says why, as half a sentence."""


class PartFailedError(Exception):
    """A part of the demo did not do its work: one sentence, and the last lines of its stderr."""

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


class StoppedError(Exception):
    """The user asked the demo to end, by Ctrl-C, a signal or a closed terminal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number
