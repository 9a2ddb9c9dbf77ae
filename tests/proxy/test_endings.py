"""What is told of connections that are over: soon, in order, bounded, and never lost to another's bug."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from prometheus_client import generate_latest

from proxy.access_log import AccessLog
from proxy.config import Direction, Endpoint
from proxy.endings import MOST, SECONDS, Endings
from proxy.metrics import Metrics
from proxy.reasons import CLOSED, Flag, Verdict
from proxy.record import ConnectionRecord, Sinks

NOW = datetime.datetime(2026, 11, 25, 12, 0, 0, tzinfo=datetime.UTC)


class Timers:
    """Stands where the loop's call_later does."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, object]] = []
        self.cancelled = 0

    def call_later(self, seconds, callback):
        self.asked.append((seconds, callback))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


class Told:
    """A connection that is over; it writes into `lines`."""

    def __init__(self, lines, name) -> None:
        self.lines, self.name = lines, name

    def tell(self, verdict, when, ended) -> None:
        assert verdict is CLOSED
        self.lines.append((self.name, when, ended))


@pytest.fixture
def timers():
    return Timers()


@pytest.fixture
def settled():
    return []


@pytest.fixture
def endings(timers, settled):
    return Endings(timers.call_later, lambda: settled.append(1), lambda: NOW, lambda: 100.0)


def test_they_wait_for_one_timer_and_are_told_in_the_order_in_which_they_ended(endings, timers, settled):
    lines = []
    for name in ("first", "second", "third"):
        endings.add(Told(lines, name), 99.5)
    assert lines == []
    ((seconds, callback),) = timers.asked
    assert seconds == SECONDS
    callback()
    assert [name for name, *_ in lines] == ["first", "second", "third"]
    assert settled == [1]


def test_each_keeps_the_time_at_which_it_ended(endings):
    lines = []
    endings.add(Told(lines, "early"), 99.25)
    endings.add(Told(lines, "late"), 100.0)
    endings.flush()
    assert lines == [("early", NOW - datetime.timedelta(seconds=0.75), 99.25), ("late", NOW, 100.0)]


def test_a_batch_is_bounded_and_the_next_has_a_timer_of_its_own(endings, timers):
    lines = []
    for number in range(MOST):
        endings.add(Told(lines, number), 100.0)
    assert len(lines) == MOST
    assert timers.cancelled == 1
    endings.add(Told(lines, "next"), 100.0)
    assert len(timers.asked) == 2
    assert len(lines) == MOST


def test_a_bug_in_one_record_loses_that_one_alone(endings, settled, caplog):
    class Broken:
        def tell(self, verdict, when, ended):
            raise ZeroDivisionError

    lines = []
    endings.add(Told(lines, "before"), 100.0)
    endings.add(Broken(), 100.0)
    endings.add(Told(lines, "behind"), 100.0)
    endings.flush()
    assert [name for name, *_ in lines] == ["before", "behind"]
    assert "please report it" in caplog.text
    assert settled == [1]


def test_one_that_ends_while_others_are_told_is_told_in_the_next_batch(endings, timers):
    lines = []

    class Last(Told):
        def tell(self, verdict, when, ended):
            super().tell(verdict, when, ended)
            endings.add(Told(lines, "meanwhile"), 100.0)

    endings.add(Last(lines, "last"), 100.0)
    endings.flush()
    assert [name for name, *_ in lines] == ["last"]
    assert len(timers.asked) == 2
    endings.flush()
    assert [name for name, *_ in lines] == ["last", "meanwhile"]


def test_on_a_loop_they_are_told_without_anybody_asking(run):
    lines = []

    async def main():
        endings = Endings(asyncio.get_running_loop().call_later, lambda: None, lambda: NOW)
        endings.add(Told(lines, "alone"), 0.0)
        while not lines:
            await asyncio.sleep(0.005)

    run(main())
    assert len(lines) == 1


class Lines(list):
    """Stands where the access log does."""

    write = list.append


def made(sinks) -> ConnectionRecord:
    record = ConnectionRecord(sinks, Direction.INBOUND, Endpoint("10.0.0.1", 5), "spiffe://a/b", "qbitel")
    record.relaying()
    return record


def test_whoever_reads_the_metrics_finds_connections_counted_that_ended_a_moment_ago(timers):
    metrics = Metrics()
    endings = Endings(timers.call_later, metrics.settle, lambda: NOW)
    metrics.before_reading = endings.flush
    sinks = Sinks(metrics, Lines(), lambda: NOW, endings=endings)
    made(sinks).close(CLOSED)
    assert sinks.access_log == []
    text = generate_latest(metrics.registry).decode()
    (closed,) = [line for line in text.splitlines() if line.startswith("istio_tcp_connections_closed_total{")]
    assert closed.endswith(" 1.0")
    assert 'qbitel_connections_open{direction="inbound"} 0.0' in text
    assert len(sinks.access_log) == 1


def test_what_went_wrong_is_said_at_once_and_behind_what_ended_before_it(timers):
    metrics = Metrics()
    endings = Endings(timers.call_later, metrics.settle, lambda: NOW)
    sinks = Sinks(metrics, Lines(), lambda: NOW, endings=endings)
    made(sinks).close(CLOSED)
    made(sinks).close(Verdict(Flag.TIMEOUT, "stalled", "it hangs"))
    assert [line["reason"] for line in sinks.access_log] == ["-", "stalled"]


def test_the_end_of_a_connection_is_timed_by_when_it_ended_and_not_by_when_it_is_told(timers):
    ticks = iter((10.0, 12.5, 40.0))  # opened, closed, told
    endings = Endings(timers.call_later, lambda: None, lambda: NOW, lambda: next(ticks))
    sinks = Sinks(Metrics(), Lines(), lambda: NOW, lambda: next(ticks), endings=endings)
    made(sinks).close(CLOSED)
    endings.flush()
    (line,) = sinks.access_log
    assert line["duration_ms"] == 2500.0
    assert line["time"] == "2026-11-25T11:59:32.500+00:00"


def test_a_log_that_is_closed_behind_them_has_every_line(tmp_path, timers):
    with (tmp_path / "log").open("wb") as file:
        log = AccessLog(file.fileno(), lambda: pytest.fail("dropped"))
        endings = Endings(timers.call_later, lambda: None, lambda: NOW)
        sinks = Sinks(Metrics(), log, lambda: NOW, endings=endings)
        for _ in range(10):
            made(sinks).close(CLOSED)
        endings.flush()
        log.close()
    assert (tmp_path / "log").read_bytes().count(b"\n") == 10
