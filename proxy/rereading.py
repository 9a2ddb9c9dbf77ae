"""Reads anew what somebody changes while the sidecar runs: one task at a time, and once more where it was asked to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from mesh.errors import UserError

_BUG: Final = "a bug, see the log"

_log = logging.getLogger("qbitel.proxy")


class Rereading:
    """Of one loop. `renew` reads and takes up; it raises UserError, and leaves what was good before as it was."""

    def __init__(self, what: str, renew: Callable[[], Awaitable[None]], failed: Callable[[UserError], None]) -> None:
        """`what` is read, in words; `failed` is told why it could not be, also of a bug of ours."""
        self._what = what
        self._renew = renew
        self._failed = failed
        self._is_asked = False
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Begin soon, and again where it is under way: what it has read by now may have changed since."""
        self._is_asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def settled(self) -> None:
        """Return when all that was asked for is done."""
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """End, in the middle of it, too."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._is_asked:
            self._is_asked = False
            try:
                await self._renew()
            except UserError as error:
                self._failed(error)
            except Exception:  # noqa: BLE001  # what somebody put into a file must not end what was good before
                _log.exception("a bug kept %s from being read; please report it, with the file", self._what)
                self._failed(UserError(_BUG))
