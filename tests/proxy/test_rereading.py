"""What is read anew while a sidecar runs: never twice at a time, never forgotten, and no bug ends it."""

from __future__ import annotations

import asyncio

import pytest

from mesh.errors import UserError
from proxy.rereading import Rereading


class Document:
    """Something that takes a while to read: each reading waits for a `let_go`."""

    def __init__(self) -> None:
        self.readings = self.at_a_time = self.most_at_a_time = 0
        self.let_go = asyncio.Semaphore(0)
        self.failures: list[str] = []
        self.error: Exception | None = None
        self.rereading = Rereading("the document", self._renew, lambda error: self.failures.append(str(error)))

    async def _renew(self) -> None:
        self.readings += 1
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        try:
            await self.let_go.acquire()
            if self.error is not None:
                raise self.error
        finally:
            self.at_a_time -= 1


async def _a_moment():
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_is_asked_for_while_it_is_read_is_read_once_more_and_not_at_the_same_time():
    async def scenario() -> None:
        document = Document()
        document.rereading.ask()
        await _a_moment()
        for _ in range(10):
            document.rereading.ask()
        document.let_go.release()
        document.let_go.release()
        await document.rereading.settled()
        assert (document.readings, document.most_at_a_time) == (2, 1)

    asyncio.run(scenario())


def test_after_it_has_settled_it_is_read_again_when_asked():
    async def scenario() -> None:
        document = Document()
        await document.rereading.settled()  # nobody has asked: nothing to wait for
        for _ in range(3):
            document.let_go.release()
            document.rereading.ask()
            await document.rereading.settled()
        assert document.readings == 3

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "said"), [(UserError("line 3 is wrong"), "line 3 is wrong"), (KeyError("x"), "a bug, see the log")]
)
def test_what_is_wrong_is_said_and_the_next_reading_may_be_right(error, said, caplog):
    async def scenario() -> None:
        document = Document()
        document.error = error
        document.let_go.release()
        document.rereading.ask()
        await document.rereading.settled()
        assert document.failures == [said]
        document.error = None
        document.let_go.release()
        document.rereading.ask()
        await document.rereading.settled()
        assert (document.readings, document.failures) == (2, [said])

    asyncio.run(scenario())
    assert ("a bug kept the document from being read" in caplog.text) == isinstance(error, KeyError)


def test_closing_ends_a_reading_that_takes_long():
    async def scenario() -> None:
        document = Document()
        await document.rereading.close()  # before anything was read
        document.rereading.ask()
        await _a_moment()
        await asyncio.wait_for(document.rereading.close(), 5)
        assert (document.readings, document.at_a_time, document.failures) == (1, 0, [])

    asyncio.run(scenario())
