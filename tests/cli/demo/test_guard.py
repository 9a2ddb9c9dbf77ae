"""However the demo ends, nothing of it is left: no process, no network, no mount, no file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.demo import guard

RunDemo = Callable[..., Any]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

# One moment in each phase: nothing stands yet, plaintext on the wire, sidecars and rules being made. The live view's
# end is in test_show.py.
PHASES = ["network namespaces", "the same traffic first", "a sidecar as UID"]
SMALL = ("--file-mib", "8")


def innermost(demo: Any) -> int:
    """The demo's own process: PID 1 of its process namespace, or the guard's child on loopback."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) in {pid for pid, _ in demo.seen}:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"cli.demo.inside" in words and b"cli.demo.confine" not in words and words[0].endswith(b"python"):
                return int(entry.name)
    raise AssertionError(f"no inner process:\n{demo.text()}")


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("phase", "number", "code"),
    [
        (PHASES[0], signal.SIGINT, 130),
        (PHASES[1], signal.SIGTERM, 143),
        (PHASES[2], signal.SIGHUP, 129),
    ],
)
def test_a_signal_ends_it_in_each_phase_and_leaves_nothing(
    run_demo: RunDemo, phase: str, number: int, code: int
) -> None:
    demo = run_demo(*SMALL)
    demo.wait_for(phase)
    assert demo.seen
    assert demo.end(number) == code, demo.text()
    assert demo.left() == []
    assert "Traceback" not in demo.text()


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("phase", [PHASES[1], PHASES[2]])
def test_a_killed_guard_takes_everything_with_it(run_demo: RunDemo, phase: str) -> None:
    demo = run_demo(*SMALL)
    demo.wait_for(phase)
    demo.look()
    assert demo.networks, "the pods were not seen"
    assert demo.end(signal.SIGKILL) == -signal.SIGKILL
    assert demo.left() == []


@pytest.mark.root
@needs_root
def test_a_killed_inner_process_takes_everything_with_it_and_the_guard_says_so(run_demo: RunDemo) -> None:
    demo = run_demo(*SMALL)
    demo.wait_for(PHASES[2])
    os.kill(innermost(demo), signal.SIGKILL)
    assert demo.process.wait(10) == 1
    assert "was killed" in demo.text()
    assert demo.left() == []


@pytest.mark.parametrize("phase", ["the same traffic first", "explicit listeners"])
def test_on_loopback_a_killed_guard_leaves_nothing(run_demo: RunDemo, phase: str) -> None:
    demo = run_demo("--loopback", *SMALL)
    demo.wait_for(phase)
    assert list(demo.temporary.iterdir()), "the private folder was not seen"
    assert demo.end(signal.SIGKILL) == -signal.SIGKILL
    assert demo.left() == []


def test_on_loopback_a_killed_inner_process_leaves_nothing(run_demo: RunDemo) -> None:
    demo = run_demo("--loopback", *SMALL)
    demo.wait_for("explicit listeners")
    os.kill(innermost(demo), signal.SIGKILL)
    assert demo.process.wait(10) == 1
    assert demo.left() == []


def test_on_loopback_ctrl_c_leaves_nothing(run_demo: RunDemo) -> None:
    demo = run_demo("--loopback", *SMALL)
    demo.wait_for("the same traffic first")
    assert demo.end(signal.SIGINT) == 130
    assert demo.left() == []


def test_it_ends_when_the_make_that_started_it_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        "import os, subprocess, sys, time\n"
        "demo = subprocess.Popen(sys.argv[2:])\n"
        "open(sys.argv[1], 'w').write(str(demo.pid))\n"
        "time.sleep(60)\n"
    )
    qbitel = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main(sys.argv[1:]))"]
    environment = {**os.environ, "MAKELEVEL": "1", "TMPDIR": str(tmp_path)}
    maker = subprocess.Popen(
        [sys.executable, "-c", script, str(pid_file), *qbitel, "demo", "--loopback", *SMALL],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("qbitel-demo-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    demo = int(pid_file.read_text())
    maker.kill()
    maker.wait()
    while list(tmp_path.glob("qbitel-demo-*")) or Path(f"/proc/{demo}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_root_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert guard.why_no_namespaces() == "namespaces need root"


def test_a_missing_tool_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert guard.why_no_namespaces() == "unshare and setpriv of util-linux are missing"


def test_a_refusal_of_the_kernel_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: str(refusing))
    assert "Operation not permitted" in guard.why_no_namespaces()
