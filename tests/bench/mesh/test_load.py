"""The load and the application, as the processes that they are, with no proxy between."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.mesh.measures import MEASURES, Measure, idle_connections
from bench.mesh.processes import Failed, Pair, free_port, running
from bench.mesh.usage import cpu_seconds, memory_mib

SECONDS = 0.1


@pytest.fixture(scope="module")
def application() -> Iterator[Pair]:
    """The application; it stands for the proxies, too, whose CPU time is read."""
    command = [sys.executable, "-m", "bench.mesh.echo"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Pair(int(process.stdout.readline()), (process,), 0.0)  # type: ignore[arg-type]
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.key)
def test_every_measure_finds_figures(application: Pair, measure: Measure) -> None:
    found = measure.take(application, SECONDS)

    assert found
    assert all(value > 0 for value in found.values()), found
    assert found.get("p50_ms", 0) <= found.get("p99_ms", 0)


def test_idle_connections_stand_until_they_are_let_go(application: Pair) -> None:
    (pid,) = application.pids
    before = descriptors(pid)

    with idle_connections(application, 20):
        assert descriptors(pid) == before + 20
    wait_until_there_are(before, pid)


def test_a_load_that_nobody_answers_is_a_failure_in_its_own_words() -> None:
    with pytest.raises(Failed, match="ConnectionRefusedError"):
        MEASURES[0].take(Pair(free_port(), (), 0.0), SECONDS)


def test_a_contender_that_ends_is_a_failure_in_its_own_words(tmp_path: Path) -> None:
    ends = [sys.executable, "-c", "import sys; sys.exit('no such flag')"]

    with pytest.raises(Failed, match="exit code 1: no such flag"), running([ends], free_port(), tmp_path):
        pass


def test_cpu_time_is_that_of_the_process_in_finer_steps_than_a_clock_tick() -> None:
    before, start = cpu_seconds([os.getpid()]), time.process_time()
    while time.process_time() - start < 0.05:
        pass
    used = cpu_seconds([os.getpid()]) - before

    assert 0.04 < used < 5
    assert memory_mib([os.getpid()], "Rss") > 5


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def wait_until_there_are(count: int, pid: int) -> None:
    deadline = time.monotonic() + 30
    while descriptors(pid) != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
