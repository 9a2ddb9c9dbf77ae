"""When a reactor looks for the next event rather than sleep, by a clock that is turned by hand."""

from __future__ import annotations

import asyncio
import os
import select

import pytest

from proxy.busy_polling import WINDOW, BusyPolling, window_where
from proxy.reactor import Reactor

US = 2**-20  # nearly a microsecond, and sums of it are exact


class Rig:
    """A polling of 200 µs, its clock, and how often it gave way (10 µs each time)."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.gave_way = 0
        self.takes = 10 * US
        self.polling = BusyPolling(200 * US, clock=lambda: self.now, give_way=self.give_way)
        self.event(after=1.0)  # the first of all, after a sleep

    def give_way(self) -> None:
        self.gave_way += 1
        self.now += self.takes

    def event(self, *, after: float, events: int = 1, takes: float = 5 * US) -> bool:
        """A turn that begins so many seconds after the last one and `takes` 5 µs; whether it is to be looked again."""
        self.now += after
        self.polling.turn_begins()
        self.now += takes
        return self.polling.turn_ends(events)

    def look_in_vain(self) -> int:
        """Look until that is over; how often it was."""
        count = 0
        while self.polling.look_again():
            count += 1
        return count


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_who_has_slept_for_long_sleeps_again(rig):
    assert not any(rig.event(after=seconds) for seconds in (1.0, 0.01, 401 * US))
    assert rig.gave_way == 0


def test_who_is_woken_soon_after_it_has_slept_looks_for_the_length_of_the_window_and_gives_way_each_time(rig):
    assert rig.event(after=100 * US)
    assert rig.look_in_vain() == 20  # of 10 µs each
    assert rig.gave_way == 20


def test_what_comes_meanwhile_begins_the_window_anew_and_nobody_is_asked_twice_to_look(rig):
    assert rig.event(after=100 * US)
    for _ in range(100):
        assert rig.polling.look_again()
        assert not rig.event(after=50 * US)  # look_again is on its way already
    assert rig.look_in_vain() == 20


def test_looking_in_vain_three_times_in_a_row_is_followed_by_ever_longer_pauses(rig):
    pauses = []
    for _ in range(10):
        tried, passed_over = 0, 0
        while tried < 3:
            if rig.event(after=150 * US):
                assert rig.look_in_vain()
                tried += 1
            else:
                passed_over += 1
        pauses.append(passed_over)
    assert pauses == [0, 8, 16, 32, 64, 128, 256, 512, 1024, 1024]


def test_one_look_that_was_worth_it_ends_the_pauses(rig):
    for _ in range(3):
        assert rig.event(after=150 * US)
        rig.look_in_vain()
    assert [rig.event(after=150 * US) for _ in range(9)] == [False] * 8 + [True]
    rig.event(after=50 * US)  # while it looks
    for _ in range(2):
        rig.look_in_vain()
        assert rig.event(after=150 * US)


def test_where_each_turn_has_much_to_do_nobody_looks(rig):
    for _ in range(50):
        rig.event(after=100 * US, events=10)
        rig.look_in_vain()
    seen = rig.gave_way
    assert not any(rig.event(after=100 * US, events=10) for _ in range(50))
    assert rig.gave_way == seen


def test_where_events_come_one_by_one_and_fast_nobody_looks_so_that_they_come_together(rig):
    for _ in range(200):  # 25 µs each: within the window, and found at once by whoever looked
        rig.event(after=20 * US)
        rig.polling.look_again()
    seen = rig.gave_way
    assert seen > 0
    assert not any(rig.event(after=20 * US) for _ in range(100))
    assert rig.gave_way == seen
    assert any(rig.event(after=100 * US) for _ in range(60))  # fewer come now


def test_where_turns_are_long_as_those_of_bulk_nobody_looks(rig):
    for _ in range(100):
        rig.event(after=50 * US, takes=300 * US)
        rig.polling.look_again()
    assert not any(rig.event(after=50 * US, takes=300 * US) for _ in range(100))
    assert any(rig.event(after=100 * US) for _ in range(60))  # messages again


def test_who_looks_when_much_comes_to_do_stops(rig):
    assert rig.event(after=100 * US)
    rig.event(after=50 * US, events=30)
    assert rig.look_in_vain() == 0
    assert not rig.event(after=50 * US)


def test_where_others_want_the_processor_for_long_it_is_left_to_them_for_a_hundred_times_that(rig):
    assert rig.event(after=100 * US)
    rig.takes = 3000 * US
    assert not rig.polling.look_again()
    rig.takes = 10 * US
    began = rig.now - 3000 * US
    looked = None
    while looked is None:
        now = rig.now
        if rig.event(after=100 * US):
            looked = now - began
    assert looked == pytest.approx(100 * 3000 * US, abs=200 * US)


@pytest.mark.parametrize(
    ("cpus", "workers", "window"),
    [(2, 1, WINDOW), (64, 8, WINDOW), (1.5, 1, WINDOW), (1, 1, 0), (0.5, 1, 0), (2, 4, 0), (4, 4, WINDOW)],
)
def test_it_is_done_where_there_is_a_processor_for_each_worker_and_more_than_one(cpus, workers, window):
    assert window_where(cpus, workers) == window


def test_a_reactor_that_looks_finds_what_comes_lets_tasks_run_and_sleeps_in_the_end(run):
    """The real thing: two pipes that answer each other at once, as two sidecars do."""
    gave_way = 0

    def give_way() -> None:
        nonlocal gave_way
        gave_way += 1

    class Echo:
        def __init__(self, out: int, rounds: int, done: asyncio.Event) -> None:
            self.out, self.left, self.done = out, rounds, done

        def on_ready(self, fd: int, _mask: int) -> None:
            os.read(fd, 1)
            self.left -= 1
            if self.left:
                os.write(self.out, b"x")
            else:
                self.done.set()

        def on_crash(self, error: Exception) -> None:
            raise error

    async def scenario() -> None:
        reactor = Reactor(asyncio.get_running_loop(), BusyPolling(0.02, give_way=give_way))
        (read, write), done = os.pipe2(os.O_NONBLOCK), asyncio.Event()
        try:
            reactor.register(read, select.EPOLLIN, Echo(write, 1000, done))
            os.write(write, b"x")
            await done.wait()  # the task runs although the reactor still looks
            await asyncio.sleep(0.1)
            seen = gave_way
            await asyncio.sleep(0.1)
            assert gave_way == seen > 0
        finally:
            reactor.close()
            os.close(read)
            os.close(write)

    run(scenario())


def test_a_reactor_that_is_closed_while_it_looks_looks_no_more(run):
    """As when a sidecar ends right behind its last connection: the loop goes on for a moment."""
    errors = []

    class Read:
        def __init__(self, done: asyncio.Event) -> None:
            self.done = done

        def on_ready(self, fd: int, _mask: int) -> None:
            os.read(fd, 1)
            self.done.set()

        def on_crash(self, error: Exception) -> None:
            raise error

    async def scenario() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(lambda _loop, context: errors.append(context))
        looks = 0

        def give_way() -> None:
            nonlocal looks
            looks += 1

        reactor = Reactor(loop, BusyPolling(10.0, give_way=give_way))  # a window that does not end by itself
        read, write = os.pipe2(os.O_NONBLOCK)
        try:
            reactor.register(read, select.EPOLLIN, Read(done))
            for _ in range(2):  # the second comes soon after the first
                done.clear()
                os.write(write, b"x")
                await done.wait()
            await asyncio.sleep(0.01)
            assert looks > 0
            reactor.close()
            seen = looks
            await asyncio.sleep(0.01)
            assert looks == seen
        finally:
            os.close(read)
            os.close(write)

    run(scenario())
    assert errors == []
