"""Waiting for sockets and for time: nothing is left behind, nobody waits in vain, and who is cancelled hears why."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

from proxy.reactor import Reactor
from proxy.waits import Waits, is_connected


@pytest.fixture
def waiting(run):
    """Run a scenario with a Waits; at its end nothing is in the reactor any more."""

    def go(scenario):
        async def main():
            loop = asyncio.get_running_loop()
            reactor = Reactor(loop)
            with contextlib.closing(reactor):
                result = await scenario(Waits(loop, reactor))
                assert len(reactor) == 0
                return result

        return run(main())

    return go


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_has_come_is_had_at_once_and_what_has_not_is_waited_for(waiting, tcp_pair):
    near, far = tcp_pair()

    async def scenario(waits):
        far.send(b"early")
        received = [await waits.receive(near, 100)]
        task = asyncio.ensure_future(waits.receive(near, 100))
        await turns()
        assert not task.done()
        far.send(b"late")
        received.append(await task)
        far.close()
        received.append(await waits.receive(near, 100))
        return received

    assert waiting(scenario) == [b"early", b"late", b""]


def test_more_than_the_kernel_takes_arrives_whole(waiting, tcp_pair):
    near, far = tcp_pair(buffer=4096)
    data = os.urandom(1 << 20)

    async def scenario(waits):
        sending = asyncio.ensure_future(waits.send_all(near, data))
        received = b""
        while len(received) < len(data):
            received += await waits.receive(far, 65536)
        await sending
        return received

    assert waiting(scenario) == data


def test_a_connection_that_breaks_is_an_error_to_who_waits(waiting, tcp_pair):
    near, far = tcp_pair()

    async def scenario(waits):
        task = asyncio.ensure_future(waits.receive(near, 100))
        await turns()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        with pytest.raises(ConnectionResetError):
            await task

    waiting(scenario)


def test_who_is_cancelled_leaves_the_socket_to_the_next(waiting, tcp_pair):
    near, far = tcp_pair()

    async def scenario(waits):
        for _ in range(3):
            task = asyncio.ensure_future(waits.receive(near, 100))
            await turns(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        far.send(b"x")
        return await waits.receive(near, 100)

    assert waiting(scenario) == b"x"


def test_who_is_cancelled_in_the_turn_in_which_bytes_come_loses_none(waiting, tcp_pair):
    near, far = tcp_pair()

    async def scenario(waits):
        task = asyncio.ensure_future(waits.receive(near, 100))
        await turns()
        far.send(b"x")
        while len(waits._reactor):  # until the reactor has seen it
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await task
        return await waits.receive(near, 100)

    assert waiting(scenario) == b"x"


def test_connecting_is_over_or_is_waited_for_or_says_why_not(waiting):
    async def scenario(waits):
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
            sock.setblocking(False)
            assert not is_connected(sock)
            await waits.connect(sock, listener.getsockname(), 30)
            assert is_connected(sock)
        with socket.socket() as bound, socket.socket() as sock:
            bound.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await waits.connect(sock, bound.getsockname(), 30)

    waiting(scenario)


def test_a_block_whose_time_is_up_ends_by_timeout_error_and_the_task_goes_on(waiting):
    async def scenario(waits):
        with pytest.raises(TimeoutError), waits.at_most(0.02):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    assert waiting(scenario) == 0


def test_a_block_that_ends_before_is_not_touched_and_leaves_nothing_behind(waiting):
    async def scenario(waits):
        for _ in range(3):
            with waits.at_most(0.01):
                pass
        await asyncio.sleep(0.05)
        assert asyncio.current_task().cancelling() == 0
        assert waits._lines == {}
        with pytest.raises(ZeroDivisionError), waits.at_most(0.01):
            raise ZeroDivisionError

    waiting(scenario)


def test_each_has_the_whole_of_its_time_however_many_share_the_timer(waiting):
    async def scenario(waits):
        loop = asyncio.get_running_loop()

        async def stay(began_later, seconds, at_least):
            await asyncio.sleep(began_later)
            began = loop.time()
            with contextlib.suppress(TimeoutError), waits.at_most(seconds):
                await asyncio.Event().wait()
            return loop.time() - began >= at_least

        return await asyncio.gather(
            *(stay(0.013 * number, 0.05, 0.048) for number in range(6)), stay(0, 0.02, 0.018), stay(0.03, 0.2, 0.198)
        )

    assert all(waiting(scenario))


def test_in_the_inner_of_two_blocks_the_shorter_one_counts(waiting):
    async def scenario(waits):
        with waits.at_most(60), pytest.raises(TimeoutError), waits.at_most(0.01):
            await asyncio.Event().wait()
        with pytest.raises(TimeoutError), waits.at_most(0.01), waits.at_most(60):
            await asyncio.Event().wait()
        with pytest.raises(TimeoutError), waits.at_most(0.01), waits.at_most(0.01):
            await asyncio.Event().wait()
        return asyncio.current_task().cancelling()

    assert waiting(scenario) == 0


def test_who_is_cancelled_by_somebody_else_is_not_taken_for_late(waiting):
    async def scenario(waits):
        async def stay():
            with waits.at_most(0.01):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    await asyncio.sleep(0.05)  # it is told twice: by somebody else, and by the clock

        task = asyncio.ensure_future(stay())
        await turns(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    waiting(scenario)


def test_outside_a_task_nobody_has_time():
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop), pytest.raises(RuntimeError), Waits(loop, None).at_most(1):
        pytest.fail("got in")


def test_a_bug_in_the_reactor_ends_the_wait(waiting, tcp_pair):
    near, _far = tcp_pair()

    async def scenario(waits):
        task = asyncio.ensure_future(waits.receive(near, 100))
        await turns(1)
        (handler,) = waits._reactor._handlers.values()
        handler.on_crash(ZeroDivisionError("oops"))
        with pytest.raises(ZeroDivisionError):
            await task

    waiting(scenario)
