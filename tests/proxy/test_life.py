"""How a process is asked to end."""

from __future__ import annotations

import asyncio
import signal

from proxy.life import Stop


def state(stop: Stop) -> tuple[bool, bool, bool]:
    return stop.draining.is_set(), stop.asked.is_set(), stop.now.is_set()


def test_each_way_to_ask_includes_the_milder_ones(run):
    async def main():
        loop = asyncio.get_running_loop()
        drained, asked, ended = Stop(loop), Stop(loop), Stop(loop)
        drained.drain()
        asked.drain()
        asked.ask()
        ended.end()
        return state(drained), state(asked), state(ended)

    assert run(main()) == ((True, False, False), (True, True, False), (True, True, True))


def test_the_second_signal_ends_it_now(run):
    async def main():
        stop = Stop(asyncio.get_running_loop())
        stop.on(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        await stop.asked.wait()
        first = state(stop)
        signal.raise_signal(signal.SIGUSR1)
        await stop.now.wait()
        return first, stop.failed

    assert run(main()) == ((True, True, False), False)


def test_a_task_that_raises_is_a_failure_and_one_that_ends_or_is_cancelled_is_none(run, caplog):
    async def raises():
        raise ZeroDivisionError

    async def main():
        stop = Stop(asyncio.get_running_loop())
        fine, cancelled, broken = (asyncio.ensure_future(one) for one in (asyncio.sleep(0), asyncio.sleep(9), raises()))
        for task in (fine, cancelled):
            stop.at_failure_of(task)
        cancelled.cancel()
        await asyncio.gather(fine, cancelled, return_exceptions=True)
        await asyncio.sleep(0)
        before = stop.failed, state(stop)
        stop.at_failure_of(broken)
        await stop.asked.wait()
        return before, stop.failed

    assert run(main()) == ((False, (False, False, False)), True)
    assert "ZeroDivisionError" in caplog.text
