"""How a process is asked to end: told to drain first, then to end when that is done, then to end now."""

from __future__ import annotations

import asyncio
import logging
import signal

_log = logging.getLogger("qbitel.proxy")


class Stop:
    """What signals, operators, and the end of a task that must not end ask for.

    `draining`: no more traffic is welcome, and everything that is there goes on. `asked`: end as soon as nothing is
    left to do, within the time for that. `now`: end. Each includes the ones before it. `failed` afterwards: it was a
    bug that asked, and the exit code must say so.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.draining = asyncio.Event()
        self.asked = asyncio.Event()
        self.now = asyncio.Event()
        self.failed = False

    def on(self, *numbers: signal.Signals) -> None:
        """Let these signals ask."""
        for number in numbers:
            self._loop.add_signal_handler(number, self.ask)

    def drain(self) -> None:
        """Say that no more traffic is welcome, and stay."""
        self.draining.set()

    def ask(self) -> None:
        """The first call asks to end in order, the second to end now."""
        if self.asked.is_set():
            self.now.set()
        self.draining.set()
        self.asked.set()

    def end(self) -> None:
        """End now: the application has finished."""
        for event in (self.draining, self.asked, self.now):
            event.set()

    def at_failure_of(self, task: asyncio.Task[None]) -> None:
        """Ask to end when `task` raises: a sidecar that does only a part of its work must not look healthy."""
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("a bug ended what this sidecar cannot go on without; it ends, please report it", exc_info=error)
        self.failed = True
        if not self.asked.is_set():
            self.ask()
