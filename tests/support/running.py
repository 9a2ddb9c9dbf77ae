"""Coroutines of a test, run to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

# Seconds that anything may take on a slow machine.
PATIENCE: Final = 90.0


def run(main: Coroutine[Any, Any, Any], patience: float = PATIENCE) -> Any:
    """Run to the end; nothing may be left behind, and the loop may have nothing to complain of."""
    reports: list[dict[str, Any]] = []

    async def supervised() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))
        async with asyncio.timeout(patience):
            return await main

    result = asyncio.run(supervised())
    assert reports == []
    return result


async def until(condition: Callable[[], Any]) -> None:
    """Return when `condition()` holds; the patience of run() ends what never does."""
    while not condition():
        await asyncio.sleep(0.01)
