"""What the loop is asked to watch, on both loops."""

from __future__ import annotations

import asyncio
import socket

from aiotls.watch import Watch
from tests.aiotls.conftest import Run


def test_each_side_is_called_as_long_as_it_is_wanted_and_by_whom_it_was_wanted_last(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            watch = Watch(loop, ours)
            readable, other, writable = asyncio.Event(), asyncio.Event(), asyncio.Event()
            watch.wait_for(readable.set, writable.set)
            await writable.wait()
            assert not readable.is_set()
            watch.wait_for(readable.set, None)
            theirs.send(b"x")
            await readable.wait()
            watch.wait_for(other.set, None)
            await other.wait()
            watch.wait_for(None, None)
            for event in (readable, other, writable):
                event.clear()
            watch.wait_for(None, writable.set)
            await writable.wait()
            assert not (readable.is_set() or other.is_set())
            watch.wait_for(None, None)

    run(main())


def test_what_is_watched_already_is_not_asked_for_again() -> None:
    class Counting:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def __getattr__(self, name: str) -> object:
            return lambda *_words: self.calls.append(name)

    loop = Counting()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = Watch(loop, ours)  # type: ignore[arg-type]

        def callback() -> None:
            pass

        for _ in range(3):
            watch.wait_for(callback, callback)
        assert loop.calls == ["add_reader", "add_writer"]
        for _ in range(3):
            watch.wait_for(None, callback)
        assert loop.calls == ["add_reader", "add_writer", "remove_reader"]
