"""Lines to a pipe: outside a loop, and what is shared by both logs. The rest is in test_access_log.py."""

from __future__ import annotations

import os
import time

import pytest

from proxy.lines import MAX_LINE, MAX_WAITING, LineWriter


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_outside_a_loop_a_line_is_written_at_once(pipe):
    read, write = pipe
    LineWriter(write, pytest.fail, pytest.fail).write(b"one\n")
    assert os.read(read, 100) == b"one\n"


def test_a_loop_that_ended_in_between_loses_no_line(run, pipe):
    read, write = pipe
    writer = LineWriter(write, lambda: pytest.fail("dropped"), pytest.fail)
    line = b"x" * (MAX_LINE - 1) + b"\n"

    async def fill():
        for _ in range(20):  # a pipe holds 16 of them
            writer.write(line)

    run(fill())
    received = os.read(read, 1 << 20)
    writer.write(b"last\n")
    received += os.read(read, 1 << 20)
    assert received == line * 20 + b"last\n"


def test_with_no_reader_nothing_is_waited_for_inside_a_loop_and_memory_is_bounded(run, pipe):
    _, write = pipe
    dropped = []
    writer = LineWriter(write, lambda: dropped.append(1), pytest.fail)

    async def flood():
        began = time.monotonic()
        for _ in range(16 + MAX_WAITING + 100):
            writer.write(b"x" * (MAX_LINE - 1) + b"\n")
        return time.monotonic() - began

    assert run(flood()) < 5
    assert len(dropped) == 100
    writer.close()
    assert len(dropped) == 100 + MAX_WAITING
