"""Steps of handshakes, one per turn of the loop, in rounds over the addresses that they come from."""

from __future__ import annotations

import asyncio
import itertools

from proxy.handshake_queue import HandshakeQueue


class Flow:
    """Stands for the data path: something that is ready in every turn of the loop, and counts them."""

    def __init__(self) -> None:
        self.turns = 0
        self._loop = asyncio.get_running_loop()
        self._turn()

    def _turn(self) -> None:
        self.turns += 1
        self._handle = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._handle.cancel()


def test_between_two_steps_the_data_path_has_its_turn(run):
    async def main():
        queue, flow = HandshakeQueue(asyncio.get_running_loop(), lambda _length: None), Flow()
        at: list[int] = []

        async def step():
            await queue.turn("a")
            at.append(flow.turns)

        await asyncio.gather(*(step() for _ in range(50)))
        flow.stop()
        return at

    at = run(main())
    assert len(at) == 50
    assert all(later > earlier for earlier, later in itertools.pairwise(at))


def test_a_step_that_nobody_is_in_front_of_does_not_wait(run):
    async def main():
        lengths: list[int] = []
        queue = HandshakeQueue(asyncio.get_running_loop(), lengths.append)
        coroutine = queue.turn("a")
        try:
            coroutine.send(None)
        except StopIteration:
            return lengths
        return "it waited"

    assert run(main()) == []


def test_who_sends_thousands_waits_behind_itself_and_anybody_else_is_next(run):
    async def main():
        queue = HandshakeQueue(asyncio.get_running_loop(), lambda _length: None)
        order: list[str] = []

        async def step(source):
            await queue.turn(source)
            order.append(source)

        flood = [asyncio.ensure_future(step("flood")) for _ in range(1000)]
        await asyncio.sleep(0)
        peers = [asyncio.ensure_future(step(f"peer{number}")) for number in range(3)]
        await asyncio.gather(*peers)
        before = order.count("flood")
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        return before, len(queue)

    assert run(main()) <= (8, 0)


def test_who_gives_up_while_it_waits_is_in_nobodys_way_and_the_length_is_true(run):
    async def main():
        lengths: list[int] = []
        queue = HandshakeQueue(asyncio.get_running_loop(), lengths.append)
        tasks = [asyncio.ensure_future(queue.turn("a")) for _ in range(4)]
        await asyncio.sleep(0)
        assert len(queue) == 3  # the first went ahead
        tasks[1].cancel()
        tasks[3].cancel()
        await asyncio.wait(tasks)
        await queue.turn("b")
        return len(queue), max(lengths), lengths[-1], [task.cancelled() for task in tasks]

    assert run(main()) == (0, 3, 0, [False, True, False, True])


def test_who_is_cancelled_in_the_moment_of_its_turn_does_not_keep_the_others_from_theirs(run):
    async def main():
        loop = asyncio.get_running_loop()
        queue = HandshakeQueue(loop, lambda _length: None)
        await queue.turn("a")
        first, second = (asyncio.ensure_future(queue.turn("a")) for _ in range(2))
        while len(queue) != 1:
            await asyncio.sleep(0)
        first.cancel()  # its turn has come, and it has not heard of that yet
        await asyncio.gather(first, return_exceptions=True)
        await second
        return len(queue)

    assert run(main()) == 0
