"""The inbound connections whose handshake is not finished: bounded, so that strangers cannot hold our memory.

A stranger that connects and says nothing costs it nothing. So nobody waits for a place: when there are too many, the
address that has most of them loses the one that has been at it for longest. A peer of the mesh needs milliseconds; who
floods us from one address is in its own way alone, and who does it from many must replace all others within that time.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from proxy.handshake import HandshakeFailed

EVICTED: Final = "handshake_evicted"


class Unfinished:
    """At most `capacity` tasks of one loop, in the order in which they came."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._staying: dict[asyncio.Task[object], str] = {}
        self._of_source: dict[str, dict[asyncio.Task[object], None]] = {}  # a dictionary keeps its order
        self._told_to_go: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        return len(self._staying)

    @property
    def is_full(self) -> bool:
        """Whether the next to come replaces another."""
        return len(self._staying) >= self._capacity

    def place(self, source: str = "") -> Place:
        """A block for `with`: inside, the current task waits for a stranger from `source`. Such blocks of one task do
        not nest.

        Raises HandshakeFailed, from whatever the block is waiting for then, when newer ones need the place.
        """
        return Place(self, source)

    def enter(self, task: asyncio.Task[object], source: str) -> None:
        """A Place's call: `task` begins to wait."""
        if len(self._staying) >= self._capacity:
            self._evict_one()
        self._staying[task] = source
        self._of_source.setdefault(source, {})[task] = None

    def leave(self, task: asyncio.Task[object]) -> bool:
        """A Place's call: it waits no more. Return whether it was told to go."""
        self._forget(task)
        if task not in self._told_to_go:
            return False
        self._told_to_go.remove(task)
        return True

    def failure(self) -> HandshakeFailed:
        """What who was told to go is told."""
        return HandshakeFailed(
            f"{self._capacity} newer connections were in their handshake, and this was the oldest unfinished one of "
            "the address that had most; if these are no attack, the network or this machine is too slow for them",
            EVICTED,
        )

    def _evict_one(self) -> None:
        busiest = max(self._of_source.values(), key=len)
        task = next(iter(busiest))
        self._forget(task)
        self._told_to_go.add(task)
        task.cancel()

    def _forget(self, task: asyncio.Task[object]) -> None:
        source = self._staying.pop(task, None)
        if source is not None:
            tasks = self._of_source[source]
            del tasks[task]
            if not tasks:
                del self._of_source[source]


class Place:
    """Entered once, by a task."""

    __slots__ = ("_cancelling", "_source", "_task", "_unfinished")

    def __init__(self, unfinished: Unfinished, source: str) -> None:
        self._unfinished = unfinished
        self._source = source

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be evicted")
        self._task = task
        self._cancelling = task.cancelling()
        self._unfinished.enter(task, self._source)

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        was_told_to_go = self._unfinished.leave(self._task)
        # As asyncio.timeout does it: where somebody else cancelled the task too, that counts.
        if was_told_to_go and kind is asyncio.CancelledError and self._task.uncancel() <= self._cancelling:
            raise self._unfinished.failure() from None
