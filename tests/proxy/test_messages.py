"""Lines on stderr: one for each message, printable, and never waited for."""

from __future__ import annotations

import logging
import os
import time

import pytest

from proxy.lines import MAX_LINE
from proxy.messages import MessageHandler, dropped_messages


@pytest.fixture
def log():
    """(logger, what reads its lines so far, its handler)."""
    read, write = os.pipe()
    handler = MessageHandler(write)
    logger = logging.Logger("of this test")  # one that nothing else listens to
    logger.addHandler(handler)

    def lines() -> list[str]:
        return os.read(read, 1 << 20).decode().splitlines()

    yield logger, lines, handler
    handler.close()
    os.close(read)
    os.close(write)


def test_a_message_is_one_line_with_its_time_and_level(log):
    logger, lines, _ = log
    logger.warning("hello %s", "you")
    (line,) = lines()
    assert line.endswith(" WARNING hello you")
    assert line.startswith("20")


def test_no_words_of_a_stranger_make_a_second_line_or_move_the_cursor(log):
    logger, lines, _ = log
    logger.warning("its name is %s", "evil\n2026-11-23 22:00:00,000 INFO ready: we are forged\x1b[2J\u2028")
    (line,) = lines()
    assert line.isprintable()


def test_a_traceback_cannot_pass_for_messages(log):
    logger, lines, _ = log
    try:
        raise ValueError("evil\n2026-11-23 22:00:00,000 INFO ready: we are forged\x1b[2J")  # noqa: TRY301  # a bug
    except ValueError:
        logger.exception("a bug")
    first, *rest = lines()
    assert first.endswith(" ERROR a bug")
    assert len(rest) > 2
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


def test_a_long_message_is_cut_to_a_line_that_is_written_in_one_piece(log):
    logger, lines, _ = log
    logger.warning("%s", "語" * 100_000)
    (line,) = lines()
    assert MAX_LINE - 5 < len(line.encode()) < MAX_LINE


def test_nobody_reads_stderr_and_nothing_waits(log, run, monkeypatch):
    logger, _, handler = log
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    before = dropped_messages()

    async def flood():
        began = time.monotonic()
        for _ in range(5000):
            logger.warning("%s", "x" * 100)
        return time.monotonic() - began

    assert run(flood()) < 10
    assert dropped_messages() - before > 1000
