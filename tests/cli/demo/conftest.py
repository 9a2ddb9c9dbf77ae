"""Shared by the demo's tests: a running `qbitel demo`, and what of it can still be found afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

QBITEL = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main(sys.argv[1:]))"]


def parents() -> dict[int, tuple[int, str]]:
    """pid → (parent, start time) of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != b"Z":
                found[int(entry.name)] = (int(fields[1]), fields[19].decode())
    return found


class RunningDemo:
    """A `qbitel demo` whose descendants and network namespaces are noted while it runs."""

    def __init__(self, output: Path, temporary: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self.temporary = temporary
        self.output = output
        environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("MAKELEVEL", None)
        words = [*prefix, *QBITEL, "demo", *arguments]
        self.seen: set[tuple[int, str]] = set()
        self.networks: set[str] = set()
        with self.output.open("wb") as sink:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, cwd="/"
            )

    def text(self) -> str:
        return self.output.read_text()

    def look(self) -> None:
        """Note every descendant, and the network it is in."""
        tree = parents()
        family = {self.process.pid}
        while more := {pid for pid, (parent, _) in tree.items() if parent in family} - family:
            family |= more
        for pid in family - {self.process.pid}:
            self.seen.add((pid, tree[pid][1]))
            try:
                self.networks.add(str(Path(f"/proc/{pid}/ns/net").readlink()))
            except OSError:
                continue
        self.networks.discard(str(Path("/proc/self/ns/net").readlink()))

    def wait_for(self, text: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.text():
            assert time.monotonic() < deadline, f"{text!r} did not come:\n{self.text()}"
            assert self.process.poll() is None, f"the demo ended before {text!r}:\n{self.text()}"
            self.look()
            time.sleep(0.02)
        self.look()

    def end(self, number: int, seconds: float = 10) -> int:
        self.look()
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def left(self, seconds: float = 5) -> list[str]:
        """What can still be found of it, after giving the kernel a moment."""
        deadline = time.monotonic() + seconds
        while (found := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _left(self) -> list[str]:
        now = parents()
        found = [f"process {pid}" for pid, start in self.seen if now.get(pid, (0, ""))[1] == start]
        for pid in now:
            try:
                network = str(Path(f"/proc/{pid}/ns/net").readlink())
            except OSError:
                continue
            if network in self.networks:
                found.append(f"network {network} of {pid}")
        found += [f"file {path}" for path in self.temporary.iterdir()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return found + [f"mount {line}" for line in mounts if "qbitel-demo" in line]


@pytest.fixture
def run_demo(tmp_path: Path) -> Iterator[Callable[..., RunningDemo]]:
    """Start a demo; it is killed at the end of the test where the test has not ended it."""
    running: list[RunningDemo] = []

    def start(*arguments: str, prefix: Sequence[str] = ()) -> RunningDemo:
        # Not below tmp_path, which is closed to other users.
        temporary = Path(tempfile.mkdtemp(prefix="demo-test-"))
        temporary.chmod(0o777)
        demo = RunningDemo(tmp_path / f"output-{len(running)}", temporary, *arguments, prefix=prefix)
        running.append(demo)
        return demo

    yield start
    for demo in running:
        if demo.process.poll() is None:
            demo.process.send_signal(signal.SIGKILL)
            demo.process.wait(10)
        shutil.rmtree(demo.temporary)
