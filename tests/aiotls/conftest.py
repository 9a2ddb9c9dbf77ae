"""Each test runs on asyncio's own loop and on uvloop, and must leave nothing behind: no task, no socket, no report."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

PATIENCE = 60.0  # seconds that anything here may take on a slow machine

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def open_sockets() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_to_the_end(main: Coroutine[Any, Any, Any]) -> Any:
        gc.collect()
        before = open_sockets()
        reports: list[dict[str, Any]] = []

        async def supervised() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))
            async with asyncio.timeout(PATIENCE):
                result = await main
            left: set[asyncio.Task[Any]] = set()
            for _ in range(100):
                left = asyncio.all_tasks() - {asyncio.current_task()}
                if not left:
                    break
                await asyncio.sleep(0.02)
            assert not left, f"tasks left behind: {left}"
            await asyncio.sleep(0)
            return result

        with asyncio.Runner(loop_factory=request.param) as runner:
            result = runner.run(supervised())
        assert reports == []
        gc.collect()
        assert open_sockets() <= before, "a socket was left open"
        return result

    return run_to_the_end
