"""Our epoll under uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select

import pytest

from proxy.reactor import Reactor


class Recorder:
    def __init__(self, action=None) -> None:
        self.calls: list[int] = []
        self.crashes: list[Exception] = []
        self.action = action or (lambda fd: os.read(fd, 1))

    def on_ready(self, fd: int, mask: int) -> None:
        self.calls.append(fd)
        self.action(fd)

    def on_crash(self, error: Exception) -> None:
        self.crashes.append(error)


@pytest.fixture
def pipes():
    with contextlib.ExitStack() as stack:

        def make():
            read, write = os.pipe2(os.O_NONBLOCK)
            stack.callback(_close, read)
            stack.callback(_close, write)
            return read, write

        yield make


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


@pytest.fixture
def within(run):
    """Run a scenario with a reactor."""

    def go(scenario):
        async def main():
            reactor = Reactor(asyncio.get_running_loop())
            try:
                await scenario(reactor)
            finally:
                reactor.close()

        run(main())

    return go


def test_readiness_is_told_again_until_everything_is_read(within, pipes):
    read, write = pipes()

    async def scenario(reactor):
        handler = Recorder()
        reactor.register(read, select.EPOLLIN, handler)
        os.write(write, b"abc")
        await asyncio.sleep(0.05)
        assert handler.calls == [read] * 3
        reactor.unregister(read)
        assert len(reactor) == 0

    within(scenario)


def test_more_ready_descriptors_than_one_turn_takes_all_get_theirs(within, pipes):
    made = [pipes() for _ in range(200)]

    async def scenario(reactor):
        handler = Recorder()
        for read, write in made:
            reactor.register(read, select.EPOLLIN, handler)
            os.write(write, b"x")
        await asyncio.sleep(0.1)
        assert sorted(handler.calls) == sorted(read for read, _ in made)

    within(scenario)


def test_an_event_of_a_descriptor_that_was_closed_in_the_same_turn_is_not_its_successors(within, pipes):
    first, second = pipes(), pipes()

    async def scenario(reactor):
        reads = {first[0], second[0]}
        successor = Recorder()

        def replace_the_other(fd):
            (other,) = reads - {fd}
            reactor.unregister(other)
            os.close(other)
            new_read, _ = pipes()  # gets the number that was just given back
            assert new_read == other
            reactor.register(new_read, select.EPOLLIN, successor)
            os.read(fd, 1)

        handler = Recorder(replace_the_other)
        for read, write in (first, second):
            reactor.register(read, select.EPOLLIN, handler)
            os.write(write, b"x")
        await asyncio.sleep(0.05)
        assert len(handler.calls) == 1
        assert successor.calls == []

    within(scenario)


def test_a_bug_in_one_handler_leaves_the_others_alone(within, pipes, caplog):
    broken_pipe, good_pipe = pipes(), pipes()

    async def scenario(reactor):
        def crash(fd):
            reactor.unregister(fd)
            raise ZeroDivisionError

        broken, good = Recorder(crash), Recorder()
        for (read, write), handler in ((broken_pipe, broken), (good_pipe, good)):
            reactor.register(read, select.EPOLLIN, handler)
            os.write(write, b"x")
        await asyncio.sleep(0.05)
        assert [type(error) for error in broken.crashes] == [ZeroDivisionError]
        assert good.calls == [good_pipe[0]]

    within(scenario)
    assert "please report it" in caplog.text


def test_a_descriptor_that_is_closed_need_only_be_forgotten(within, pipes):
    first, second = pipes(), pipes()

    async def scenario(reactor):
        reads = {first[0], second[0]}
        successor = Recorder()
        done = asyncio.Event()

        def close_the_other(fd):
            (other,) = reads - {fd}
            reactor.forget(other)
            os.close(other)
            new_read, new_write = pipes()  # gets the number that was just given back
            assert new_read == other
            reactor.register(new_read, select.EPOLLIN, successor)
            os.read(fd, 1)
            successor.action = lambda fd: (os.read(fd, 1), done.set())
            os.write(new_write, b"y")

        handler = Recorder(close_the_other)
        for read, write in (first, second):
            reactor.register(read, select.EPOLLIN, handler)
            os.write(write, b"x")
        await done.wait()
        assert len(handler.calls) == 1
        assert len(successor.calls) == 1
        assert len(reactor) == 2

    within(scenario)


class Ender:
    """Asks for the end of the turn in which it is told that something is ready."""

    def __init__(self, reactor, order) -> None:
        self.reactor, self.order = reactor, order

    def on_ready(self, fd: int, mask: int) -> None:
        os.read(fd, 1)
        self.reactor.after_turn(lambda: self.order.append("afterwards"))
        self.reactor.at_end_of_turn(self)
        self.order.append("ready")

    def on_turn_end(self) -> None:
        self.order.append("sent")

    def on_crash(self, error: Exception) -> None:
        raise error


def test_what_nobody_waits_for_is_done_when_all_that_is_ready_was_handled_and_sent(within, pipes):
    made = [pipes(), pipes()]
    order: list[str] = []

    async def scenario(reactor):
        for read, write in made:
            reactor.register(read, select.EPOLLIN, Ender(reactor, order))
            os.write(write, b"x")
        await asyncio.sleep(0.05)

    within(scenario)
    assert order == ["ready", "ready", "sent", "sent", "afterwards", "afterwards"]


def test_outside_of_a_turn_it_is_done_in_the_loops_next_and_what_it_has_to_send_behind_it(within):
    order: list[str] = []

    async def scenario(reactor):
        ender = Ender(reactor, order)

        def late() -> None:
            order.append("afterwards")
            reactor.at_end_of_turn(ender)
            reactor.after_turn(lambda: order.append("last"))

        reactor.after_turn(late)
        assert order == []
        await asyncio.sleep(0.01)

    within(scenario)
    assert order == ["afterwards", "sent", "last"]


def test_a_bug_in_what_one_connection_leaves_keeps_nobody_elses_from_being_done(within, caplog):
    done: list[str] = []

    async def scenario(reactor):
        reactor.after_turn(lambda: 1 // 0)
        reactor.after_turn(lambda: done.append("the other"))
        await asyncio.sleep(0.01)

    within(scenario)
    assert done == ["the other"]
    assert "please report it" in caplog.text


def test_a_bug_in_what_is_done_soon_is_told_to_its_handler_alone(within, caplog):
    done: list[str] = []

    async def scenario(reactor):
        handler = Recorder()
        reactor.soon(lambda: 1 // 0, handler)
        reactor.soon(lambda: done.append("the other"), Recorder())
        assert handler.crashes == done == []
        await asyncio.sleep(0.01)
        assert [type(error) for error in handler.crashes] == [ZeroDivisionError]

    within(scenario)
    assert done == ["the other"]
    assert "please report it" in caplog.text


def test_what_was_to_be_done_soon_is_not_done_after_close(run):
    done: list[str] = []

    async def main():
        reactor = Reactor(asyncio.get_running_loop())
        reactor.soon(lambda: done.append("late"), Recorder())
        reactor.close()
        await asyncio.sleep(0.01)

    run(main())
    assert done == []
