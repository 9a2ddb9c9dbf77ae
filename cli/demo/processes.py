"""The demo's child processes: started confined, read line by line, and able to say why they failed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.demo.errors import PartFailedError

Event = dict[str, Any]

# Kept of what a process says on stderr: enough for a traceback's end, not for a flood.
KEPT_LINES: Final = 12
STOP_SECONDS: Final = 3.0
READER_SECONDS: Final = 0.5
# What an environment may carry into the demo's own programs; the user's own server gets all of it.
PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TZ")

# `qbitel` itself, wherever it is installed: -P keeps the current folder out of the import path.
QBITEL: Final = (
    sys.executable,
    "-P",
    "-c",
    "import sys; from cli.main import main; sys.exit(main(sys.argv[1:]))",
)


def module(name: str) -> tuple[str, ...]:
    """The command that runs one of the demo's own programs."""
    return (sys.executable, "-P", "-m", f"cli.demo.{name}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom a program runs. Without anything: here, as ourselves."""

    network: Path | None = None
    user: tuple[int, int] | None = None
    account: str | None = None
    die_with: int | None = None

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` there."""
        words = list(module("confine"))
        if self.network is not None:
            words += ["--network", str(self.network)]
        if self.user is not None:
            words += ["--user", f"{self.user[0]}:{self.user[1]}"]
        if self.account is not None:
            words += ["--account", self.account]
        if self.die_with is not None:
            words += ["--die-with", str(self.die_with)]
        return [*words, "--", *command]


class Child:
    """One child process. Its stdout is JSON lines, which become events; its stderr is kept."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        on_event: Callable[[Event], None] | None = None,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        ends_with_input: bool = False,
    ) -> None:
        """Start it. Events go to `on_event` (called on a thread of this object), else wait for expect().

        `ends_with_input`: it ends by itself, and completes what it does, when its stdin ends.
        """
        self.name = name
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._on_event = on_event
        self._ends_with_input = ends_with_input
        self._stderr: deque[str] = deque(maxlen=KEPT_LINES)
        self._process = subprocess.Popen(  # noqa: S603  # our own programs, or what the user asked to run
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            env=own_environment() if environment is None else environment,
            start_new_session=True,  # Ctrl-C in a terminal goes to the demo, which ends its children in order
        )
        self._readers = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is a signal."""
        return self._process.poll()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The end of its stderr, and of what on its stdout was no JSON."""
        return tuple(self._stderr)

    def expect(self, kind: str, seconds: float) -> Event:
        """The next event, which must be of `kind`. PartFailedError if it is not, or the process ends or is late."""
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            raise self.failed(f"said nothing for {seconds:g} seconds") from None
        if event is None:
            raise self.failed("ended too early")
        if event.get("event") != kind:
            raise self.failed(f"said {event.get('event')!r} where {kind!r} was expected")
        return event

    def try_expect(self, kind: str) -> Event | None:
        """The next event if one is there already, else None. As expect() otherwise."""
        return None if self._events.empty() else self.expect(kind, 1)

    def ask(self, command: Mapping[str, object], answer: str, seconds: float) -> Event:
        """Write one JSON line to its stdin and return its answer."""
        assert self._process.stdin is not None  # noqa: S101  # Popen was told PIPE
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self.failed("ended too early") from None
        return self.expect(answer, seconds)

    def finish(self, seconds: float) -> None:
        """Wait for its end. PartFailedError unless it ends in time with exit code 0."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failed(f"did not end within {seconds:g} seconds") from None
        if code != 0:
            raise self.failed(f"failed ({describe_exit(code)})")

    def close_input(self) -> None:
        """End its stdin: what the demo's own long-running programs end at."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BrokenPipeError):  # it was faster
                self._process.stdin.close()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it: stdin closes and SIGTERM, then SIGKILL for its whole session. Does nothing the second time."""
        self.close_input()
        if self._process.poll() is None and not self._ends_with_input:
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(READER_SECONDS)  # a daemon that it left behind may hold the other end for long

    def kill(self) -> None:
        """SIGKILL for the process and everything in its session's process group."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._process.kill()

    def failed(self, what: str) -> PartFailedError:
        """The exception that says that `what` happened to this process."""
        if self._process.poll() is not None:  # then its last words are on their way
            self._readers[1].join(1)
        return PartFailedError(f"{self.name} {what}", self.last_lines)

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  # Popen was told PIPE
        with self._process.stdout as stdout:
            for line in stdout:
                self._read_line(line)
        self._events.put(None)

    def _read_line(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            self._stderr.append(line.decode("utf-8", "replace").rstrip())
            return
        if not isinstance(event, dict):
            return
        if self._on_event is None:
            self._events.put(event)
        else:
            self._on_event(event)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101  # Popen was told PIPE
        with self._process.stderr as stderr:
            for line in stderr:
                self._stderr.append(line.decode("utf-8", "replace").rstrip())


def own_environment() -> dict[str, str]:
    """The environment of the demo's own programs."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def describe_exit(code: int) -> str:
    """`exit code 3`, or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll `condition` each 50 ms until it holds or the time is over; return whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
