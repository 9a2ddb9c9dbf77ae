"""The process that the user started: it makes the demo's process, forwards what the user wants, and clears up after it.

Neither leaves anything when the other is killed. In namespaces: with the guard the kernel kills `unshare` and with
that PID 1 of the process namespace (PR_SET_PDEATHSIG), and with PID 1 everything in it, its mounts and its networks.
On loopback: the inner process ends its children when the lifeline closes, and the guard ends the inner one's.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from cli.demo.descendants import adopt_orphans, kill_descendants
from cli.demo.inside import EXIT_CANNOT_ISOLATE, EXIT_FAILED, STOP_SIGNALS
from cli.demo.options import Options
from cli.demo.processes import Place, module

# `--kill-child` is what a kill of the guard needs; with a new process namespace goes a new /proc.
UNSHARE: Final = ("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
TRIAL_SECONDS: Final = 10.0
# An orderly end takes a fraction of a second; after this it is not waited for any more.
STOP_SECONDS: Final = 6.0
POLL_SECONDS: Final = 0.25
MAX_REASON: Final = 4096


def run(options: Options) -> int:
    """Play the demo in namespaces if that can be, else over loopback; return its exit code."""
    reason = "--loopback was given" if options.loopback else why_no_namespaces()
    adopt_orphans()
    if not reason:
        code, reason = _Run(options).in_namespaces()
        if code != EXIT_CANNOT_ISOLATE:
            return code
    return _Run(options).on_loopback(reason)


def why_no_namespaces() -> str:
    """Half a sentence, or nothing where they can be tried."""
    if os.geteuid() != 0:
        return "namespaces need root"
    tools = [name for name in ("unshare", "setpriv") if shutil.which(name) is None]
    if tools:
        return f"{' and '.join(tools)} of util-linux are missing"
    try:
        done = subprocess.run(  # noqa: S603  # a fixed command
            [str(shutil.which("unshare")), *UNSHARE, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "unshare does not end"
    return "" if done.returncode == 0 else f"this machine refuses them ({done.stderr.strip()[:200]})"


class _Run:
    """One inner process and its end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lifeline, self._inner_end = socket.socketpair()
        self._stopped_at: float | None = None
        self._started_by = os.getppid()

    def in_namespaces(self) -> tuple[int, str]:
        """The exit code, and for EXIT_CANNOT_ISOLATE why."""
        unshare = [str(shutil.which("unshare")), *UNSHARE]
        return self._supervise(Place(die_with=os.getpid()).wrap([*unshare, *self._inner()]))

    def on_loopback(self, reason: str) -> int:
        """The exit code."""
        folder = Path(tempfile.mkdtemp(prefix="qbitel-demo-"))
        try:
            code, _ = self._supervise([*self._inner(), "--folder", str(folder), "--reason", reason])
            return code
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # the inner process was faster, unless it was killed

    def _inner(self) -> list[str]:
        lifeline = str(self._inner_end.fileno())
        return [*module("inside"), "--lifeline", lifeline, "--options", self._options.to_json()]

    def _supervise(self, command: list[str]) -> tuple[int, str]:
        with ExitStack() as stack:
            stack.enter_context(self._lifeline)
            for number in STOP_SIGNALS:
                stack.callback(signal.signal, number, signal.signal(number, self._stop))
            with self._inner_end:
                process = subprocess.Popen(  # noqa: S603  # our own program
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[self._inner_end.fileno()],
                    start_new_session=True,  # Ctrl-C reaches the guard alone, which passes it on once
                )
            code = self._wait(process)
            kill_descendants()
            # Everybody who held the other end is gone: this never waits.
            last_words = self._lifeline.recv(MAX_REASON).decode()
        if not last_words:
            print(f"qbitel demo: {self._how_it_ended()}; nothing of it is left", file=sys.stderr)
            return EXIT_FAILED, ""
        return code, last_words

    def _how_it_ended(self) -> str:
        return "the demo did not end in time and was killed" if self._stopped_at else "the demo was killed"

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while True:
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if self._stopped_at is not None and time.monotonic() - self._stopped_at > STOP_SECONDS:
                    process.kill()
                # A make that was killed cannot pass its Ctrl-C on, and nobody else knows of us.
                if "MAKELEVEL" in os.environ and os.getppid() != self._started_by:
                    self._stop(signal.SIGTERM, None)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        """Ask the inner process to end; asked twice, do not wait for it."""
        if self._stopped_at is not None:
            self._stopped_at -= STOP_SECONDS
            return
        self._stopped_at = time.monotonic()
        with suppress(OSError):  # it has ended already
            self._lifeline.sendall(f"{number}\n".encode())
