"""Lines to a pipe: outside a loop, and what is shared by both logs. The rest is in test_access_log.py."""

from __future__ import annotations

import asyncio
import errno
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


def test_a_full_disk_costs_the_lines_of_that_time_and_none_of_later_ones(run, tmp_path):
    place = tmp_path / "log"
    fd = os.open("/dev/full", os.O_WRONLY)
    dropped = []
    writer = LineWriter(fd, lambda: dropped.append(1), pytest.fail)

    async def go():
        for _ in range(3):
            writer.write(b"lost\n")
        while len(dropped) < 3:
            await asyncio.sleep(0)
        with place.open("wb") as file:
            os.dup2(file.fileno(), fd)  # somebody has made room
        writer.write(b"there again\n")
        while not place.stat().st_size:
            await asyncio.sleep(0)

    run(go())
    writer.close()
    os.close(fd)
    assert place.read_bytes() == b"there again\n"
    assert len(dropped) == 3


def test_a_line_that_a_full_disk_tore_does_not_swallow_the_next_one(tmp_path, monkeypatch):
    place = tmp_path / "log"
    room, real = [4], os.write

    def write(fd: int, data: bytes) -> int:
        """As on a disk with so much room: some bytes, and then an error."""
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(fd, data[: room[0]])
        room[0] -= written
        return written

    with place.open("wb", buffering=0) as file:
        writer = LineWriter(file.fileno(), lambda: None, pytest.fail)
        monkeypatch.setattr(os, "write", write)
        writer.write(b"first, which is torn\n")
        room[0] = 100
        writer.write(b"second\n")
    assert place.read_bytes() == b"firs\nsecond\n"
