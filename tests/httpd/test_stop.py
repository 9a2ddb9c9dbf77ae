"""How a server is asked to end."""

from __future__ import annotations

import asyncio
import os
import signal

from httpd.stop import Stop
from tests.httpd.rig import run


def test_the_first_signal_asks_to_drain_and_the_second_to_end() -> None:
    async def main() -> None:
        stop = Stop()
        stop.on(signal.SIGUSR1, signal.SIGUSR2)
        try:
            assert not stop.asked.is_set()
            os.kill(os.getpid(), signal.SIGUSR1)
            await stop.asked.wait()
            assert not stop.now.is_set()
            os.kill(os.getpid(), signal.SIGUSR2)
            await stop.now.wait()
        finally:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                asyncio.get_running_loop().remove_signal_handler(number)

    run(main())
