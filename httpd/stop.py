"""How a server is asked to end."""

from __future__ import annotations

import asyncio
import signal


class Stop:
    """What signals ask for: first to drain, then to end at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.now = asyncio.Event()

    def on(self, *numbers: signal.Signals) -> None:
        """Let these signals ask."""
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """The first call asks to drain, the second to end."""
        if self.asked.is_set():
            self.now.set()
        self.asked.set()
