"""Unfinished handshakes: bounded, the oldest goes, and nobody else is touched."""

from __future__ import annotations

import asyncio

import pytest

from proxy.handshake import HandshakeFailed
from proxy.unfinished import Unfinished


async def wait_in(unfinished: Unfinished, seconds: float = 60.0, source: str = "") -> str:
    try:
        with unfinished.place(source):
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()
    except HandshakeFailed as failed:
        return failed.reason
    except TimeoutError:
        return "timeout"
    return "-"


async def settle(*tasks):
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.result() if task.done() and not task.cancelled() else None for task in tasks]


def started(unfinished, count):
    return [asyncio.ensure_future(wait_in(unfinished)) for _ in range(count)]


def test_the_oldest_goes_and_the_newest_is_let_in(run):
    async def main():
        unfinished = Unfinished(2)
        tasks = started(unfinished, 5)
        ends = await settle(*tasks)
        assert len(unfinished) == 2
        assert unfinished.is_full
        for task in tasks:
            task.cancel()
        await settle(*tasks)
        assert len(unfinished) == 0
        assert not unfinished.is_full
        return ends

    assert run(main()) == ["handshake_evicted"] * 3 + [None] * 2


def test_the_address_that_has_most_loses_its_oldest_and_no_other(run):
    async def main():
        unfinished = Unfinished(4)
        sources = ("peer", "flood", "flood", "other", "flood", "flood", "flood")
        tasks = []
        for source in sources:
            tasks.append(asyncio.ensure_future(wait_in(unfinished, source=source)))
            await asyncio.sleep(0)
        ends = await settle(*tasks)
        for task in tasks:
            task.cancel()
        await settle(*tasks)
        return ends, len(unfinished)

    evicted = "handshake_evicted"
    assert run(main()) == ([None, evicted, evicted, None, evicted, None, None], 0)


def test_who_has_finished_makes_room_and_is_not_touched_any_more(run):
    async def finished(unfinished):
        with unfinished.place():
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    async def main():
        unfinished = Unfinished(1)
        first = asyncio.ensure_future(finished(unfinished))
        await settle()
        tasks = started(unfinished, 3)
        await settle(*tasks)
        done = first.done()
        for task in (first, *tasks):
            task.cancel()
        await settle(*tasks)
        return done

    assert run(main()) is False


def test_a_task_that_is_ended_by_somebody_else_is_not_taken_for_evicted(run):
    async def main():
        unfinished = Unfinished(1)
        ended, *_ = tasks = started(unfinished, 2)
        await asyncio.sleep(0)
        ended.cancel()
        tasks[1].cancel()
        await settle(*tasks)
        return [task.cancelled() for task in tasks]

    assert run(main()) == [True, True]


def test_an_evicted_task_can_still_be_waited_for_and_cancelled_later(run):
    async def lingering(unfinished):
        try:
            with unfinished.place():
                await asyncio.Event().wait()
        except HandshakeFailed:
            await asyncio.sleep(0.01)  # it says goodbye
        return asyncio.current_task().cancelling()

    async def main():
        unfinished = Unfinished(1)
        first = asyncio.ensure_future(lingering(unfinished))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(wait_in(unfinished, 0.02))
        return await first, await second

    assert run(main()) == (0, "timeout")


def test_outside_a_task_there_is_no_place():
    with pytest.raises(RuntimeError), Unfinished(1).place():
        pytest.fail("got in")
