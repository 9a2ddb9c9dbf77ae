"""Lines that are written whole, in order, and never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

import pytest

from proxy.access_log import AccessLog
from proxy.lines import MAX_LINE

PADDING = "x" * 200  # so that some hundred lines fill a pipe of 64 KiB


@pytest.fixture
def pipe():
    read, write = os.pipe()
    ends = {"read": read, "write": write}
    yield ends
    for fd in ends.values():
        os.close(fd)


def lines_of(data: bytes) -> list[dict]:
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def test_a_line_is_written_at_once(run, pipe):
    async def main():
        AccessLog(pipe["write"], pytest.fail).write({"a": 1, "b": None, "c": "ü"})

    run(main())
    assert lines_of(os.read(pipe["read"], 4096)) == [{"a": 1, "b": None, "c": "ü"}]


def test_a_reader_that_pauses_gets_every_line_later_and_in_order(run, pipe):
    async def main():
        log = AccessLog(pipe["write"], lambda: pytest.fail("dropped"))
        for number in range(1000):
            log.write({"number": number, "padding": PADDING})
        os.set_blocking(pipe["read"], False)
        received = b""
        while received.count(b"\n") < 1000:
            with contextlib.suppress(BlockingIOError):
                received += os.read(pipe["read"], 1 << 20)
            await asyncio.sleep(0.01)
        return received

    assert [line["number"] for line in lines_of(run(main()))] == list(range(1000))


def test_lines_that_nobody_reads_are_dropped_and_counted_and_nothing_blocks(run, pipe):
    dropped = []

    async def main():
        log = AccessLog(pipe["write"], lambda: dropped.append(1))
        for number in range(10_000):
            log.write({"number": number, "padding": PADDING})
        log.close()

    run(main(), patience=5)
    written = os.read(pipe["read"], 1 << 20).count(b"\n")
    assert 100 < written < 1000
    assert len(dropped) == 10_000 - written


@pytest.mark.parametrize("character", ["x", "ü", "語", "😀", '"', "\\", "\0", "\u202e", "\udc80", "\U000e0001"])
def test_a_line_is_cut_so_that_it_is_written_in_one_piece_whatever_it_is_made_of(run, pipe, character):
    fields = ("event", "source", "destination", "local_identity", "peer_identity", "group", "reason", "message")

    async def main():
        AccessLog(pipe["write"], pytest.fail).write(dict.fromkeys(fields, character * 5000))

    run(main())
    line = os.read(pipe["read"], 1 << 20)
    assert MAX_LINE // 4 < len(line) <= MAX_LINE
    (fields_read,) = lines_of(line)
    assert list(fields_read) == list(fields)
    assert all(text.isprintable() for text in fields_read.values())


def test_what_a_stranger_sent_cannot_command_a_terminal_or_forge_a_line(run, pipe):
    evil = "evil\n{}\x1b[2J\u2028\u202e\x9b"

    async def main():
        AccessLog(pipe["write"], pytest.fail).write({"message": evil})

    run(main())
    (line,) = lines_of(os.read(pipe["read"], 65536))
    assert line == {"message": "evil\\n{}\\x1b[2J\\u2028\\u202e\\x9b"}


def test_a_reader_that_is_gone_ends_the_log_with_one_message_and_not_the_sidecar(run, pipe, caplog):
    dropped = []

    async def main():
        log = AccessLog(pipe["write"], lambda: dropped.append(1))
        os.close(pipe.pop("read"))
        for _ in range(3):
            log.write({"a": 1})
        log.close()

    run(main())
    assert len(dropped) == 3
    assert caplog.text.count("no access log from here on") == 1


def test_without_standard_output_lines_are_counted_as_dropped(run):
    dropped = []

    async def main():
        AccessLog(None, lambda: dropped.append(1)).write({"a": 1})

    run(main())
    assert dropped == [1]


def test_as_text_each_field_is_name_and_value_and_empty_ones_are_left_out(run, pipe):
    fields = {
        "event": "connection", "source": "10.0.0.1:5", "policy": None, "message": 'it said "no" = never', "reason": "",
        "bytes_sent": 7, "resumed": False, "evil": "a\nb",
    }  # fmt: skip

    async def main():
        AccessLog(pipe["write"], pytest.fail, "text").write(fields)

    run(main())
    assert os.read(pipe["read"], 4096).decode() == (
        'event=connection source=10.0.0.1:5 message="it said \\"no\\" = never" bytes_sent=7 resumed=false '
        'evil="a\\\\nb"\n'
    )


def test_switched_off_it_writes_nothing_and_counts_nothing_as_lost(run, pipe):
    async def main():
        log = AccessLog(pipe["write"], pytest.fail, "off")
        log.write({"a": 1})
        log.close()

    run(main())
    os.set_blocking(pipe["read"], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe["read"], 1)


def test_lines_of_one_turn_go_out_together(run, pipe, monkeypatch):
    writes = []
    real = os.write

    def counting(fd, data):
        writes.append(data.count(b"\n"))
        return real(fd, data)

    async def main():
        log = AccessLog(pipe["write"], pytest.fail)
        for number in range(8):
            log.write({"number": number})
        await asyncio.sleep(0)
        log.write({"number": 8})

    with monkeypatch.context() as patch:
        patch.setattr("proxy.lines.os.write", counting)
        run(main())
    assert writes == [8, 1]
    assert [line["number"] for line in lines_of(os.read(pipe["read"], 4096))] == list(range(9))
