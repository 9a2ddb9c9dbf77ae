"""When nothing moves any more."""

from __future__ import annotations

import asyncio

from aiotls.stall import StallTimer
from tests.aiotls.conftest import Run


class Loop:
    """A clock that is moved by hand, and what is to be called when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: object, *arguments: object) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.now + seconds, callback, arguments, self)  # type: ignore[arg-type]
        self.due.append((self.now + seconds, handle))
        return handle

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        """What a handle asks of its loop."""

    def get_debug(self) -> bool:
        return False

    def move_to(self, now: float) -> None:
        while due := sorted(one for one in self.due if one[0] <= now and not one[1].cancelled()):
            self.now, handle = due[0]
            self.due.remove(due[0])
            handle._run()
        self.now = now


class Told:
    """A timer on such a loop, and when it told of what."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.timer = StallTimer(self.loop)  # type: ignore[arg-type]
        self.told: list[tuple[float, float]] = []

    def start(self, seconds: float, *, whatever_moves: bool = False) -> None:
        self.timer.start(seconds, lambda each: self.told.append((self.loop.now, each)), whatever_moves=whatever_moves)


def test_it_tells_once_when_nothing_moved() -> None:
    made = Told()
    made.start(10)
    made.loop.move_to(9.9)
    assert made.told == []
    made.loop.move_to(100)
    assert made.told == [(10, 10)]


def test_whatever_moves_puts_it_off() -> None:
    made = Told()
    made.start(10)
    for now in (8, 16, 24):
        made.loop.move_to(now)
        made.timer.moved()
    made.loop.move_to(100)
    assert made.told == [(34, 10)]


def test_it_may_end_in_any_case() -> None:
    made = Told()
    made.start(10, whatever_moves=True)
    made.loop.move_to(9)
    made.timer.moved()
    made.loop.move_to(100)
    assert made.told == [(10, 10)]


def test_a_new_start_counts_in_place_of_the_old_one_and_nothing_does_after_cancel() -> None:
    made = Told()
    made.timer.cancel()
    made.start(10)
    made.loop.move_to(5)
    made.start(3, whatever_moves=True)
    made.loop.move_to(50)
    assert made.told == [(8, 3)]
    made.start(10)
    made.timer.cancel()
    made.timer.cancel()
    made.loop.move_to(100)
    assert made.told == [(8, 3)]


def test_on_a_real_loop_too(run: Run) -> None:
    async def main() -> None:
        told = asyncio.Event()
        timer = StallTimer(asyncio.get_running_loop())
        timer.start(0.01, lambda _seconds: told.set())
        await told.wait()

    run(main())
