"""A contender's two processes: started, awaited, ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

_HOST: Final = "127.0.0.1"
_PATIENCE: Final = 60.0
_END_SECONDS: Final = 10.0
_PROBE: Final = b"E" * 64


class Failed(Exception):
    """A contender does not run; the message says why, with its own last words."""


class Pair:
    """A client-side and a server-side proxy. `port` takes connections, which come out at the application."""

    def __init__(self, port: int, processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
        self.port = port
        self._processes = processes
        self.seconds_to_first_echo = seconds

    @property
    def pids(self) -> list[int]:
        """Of both sides; none where there is no proxy."""
        return [process.pid for process in self._processes]


@contextlib.contextmanager
def running(commands: Sequence[Sequence[str | Path]], port: int, folder: Path) -> Iterator[Pair]:
    """Start `commands` at once, wait until an echo comes back through `port`, and end them afterwards."""
    start = time.perf_counter()
    logs = [folder / f"log-{number}.txt" for number in range(len(commands))]
    with contextlib.ExitStack() as stack:
        processes = [
            _start(command, stack.enter_context(log.open("wb")), stack)
            for command, log in zip(commands, logs, strict=True)
        ]
        _await_echo(port, lambda: _last_words(processes, logs))
        yield Pair(port, processes, time.perf_counter() - start)


def free_port() -> int:
    """A port of the loopback that nobody had a moment ago."""
    with socket.create_server((_HOST, 0)) as sock:
        found: int = sock.getsockname()[1]
        return found


def _start(command: Sequence[str | Path], log: IO[bytes], stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    # Access logs go nowhere, but they are written: by every contender.
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        env=_environment(),
    )
    stack.callback(_end, process)
    return process


def _environment() -> dict[str, str]:
    # ExitStack of coverage tools and the like are no part of what is measured.
    return {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTHONDEV"))}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_echo(port: int, failure: Callable[[], str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _echoes(port):
        if words := failure():
            raise Failed(words)
        if time.monotonic() > deadline:
            raise Failed(f"no echo within {_PATIENCE:g} s")
        time.sleep(0.002)


def _echoes(port: int) -> bool:
    try:
        with socket.create_connection((_HOST, port), timeout=_PATIENCE) as sock:
            sock.sendall(_PROBE)
            received = 0
            while received < len(_PROBE):
                length = len(sock.recv(len(_PROBE)))
                if not length:
                    return False
                received += length
    except OSError:
        return False
    return True


def _last_words(processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> str:
    """Of the first that has ended; "" while all run."""
    for process, log in zip(processes, logs, strict=True):
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            return f"exit code {process.returncode}: {lines[-1][:300] if lines else 'it said nothing'}"
    return ""
