"""A parent and its worker, over a real socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from proxy.admin import channel
from proxy.admin.channel import Channel, ParentChannel, WorkerChannel


@contextlib.asynccontextmanager
async def joined(answer, on_obstacle=lambda _obstacle: None):
    """(the parent's end, the worker's end), both listening."""
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
    parent, worker = WorkerChannel(pair[0], on_obstacle), ParentChannel(pair[1], answer)
    tasks = [asyncio.ensure_future(end.run()) for end in (parent, worker)]
    try:
        yield parent, worker, tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in pair:
            sock.close()


def test_questions_are_answered_each_by_its_own_answer_however_large(run):
    def answer(question, parameters):
        return {"question": question, **parameters, "rows": ["x" * 1000] * int(parameters["rows"])}

    async def main():
        async with joined(answer) as (parent, _, _):
            return await asyncio.gather(*(parent.ask("connections", {"rows": str(n)}) for n in (2000, 0, 5)))

    answers = run(main())
    assert [len(answer["rows"]) for answer in answers] == [2000, 0, 5]
    assert {answer["question"] for answer in answers} == {"connections"}


def test_a_worker_tells_of_its_obstacles_in_order(run):
    async def main():
        heard = asyncio.Queue()
        async with joined(lambda *_: None, heard.put_nowait) as (_, worker, _):
            for obstacle in ("no valid certificate", ""):
                worker.tell(obstacle)
            return [await heard.get(), await heard.get()]

    assert run(main()) == ["no valid certificate", ""]


def test_a_worker_that_is_gone_gives_no_answer_and_nobody_waits_for_it(run):
    async def main():
        async with joined(lambda *_: None) as (parent, worker, tasks):
            asked = asyncio.ensure_future(parent.ask("memory", {}))
            tasks[1].cancel()
            await asyncio.gather(tasks[1], return_exceptions=True)
            worker._channel.close()
            await tasks[0]
            return await asked

    assert run(main()) is None


def test_a_worker_that_does_not_answer_in_time_gives_none_and_a_late_answer_is_dropped(run, monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", 0.05)

    async def main():
        async with joined(lambda *_: "late") as (parent, worker, tasks):
            tasks[1].cancel()  # the worker is busy with something else
            first = await parent.ask("memory", {})
            again = asyncio.ensure_future(worker.run())
            monkeypatch.setattr(channel, "PATIENCE", 10)
            second = await parent.ask("memory", {})
            again.cancel()
            return first, second

    assert run(main()) == (None, "late")


def test_what_cannot_be_a_length_is_a_bug_and_says_so(run):
    async def main():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            theirs.sendall(b"\xff" * 8)
            await Channel(ours, pytest.fail).run()

    with pytest.raises(ValueError, match="4294967295 bytes"):
        run(main())
