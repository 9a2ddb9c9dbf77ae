"""Ending every process that comes from this one, also those that put themselves into the background (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
# Each round kills one generation; what is killed cannot start another.
MAX_ROUNDS: Final = 64
# A daemon gets this long to end in order, and for example to take its pid file away.
GRACE_SECONDS: Final = 0.5


def adopt_orphans() -> None:
    """From now on, descendants whose parent ends become children of this process (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def end_descendants() -> None:
    """SIGTERM for every child, a moment to obey, then kill_descendants()."""
    for pid in children(os.getpid()):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and _reap():
        time.sleep(0.02)
    kill_descendants()


def _reap() -> bool:
    """Take leave of the children that have ended; return whether there are others."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def kill_descendants() -> None:
    """SIGKILL every child, and every orphan that this brings, until there are none."""
    for _ in range(MAX_ROUNDS):
        pids = children(os.getpid())
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def children(parent: int) -> list[int]:
    """The processes whose parent is `parent`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                # The name stands in brackets and may hold anything; state and parent follow the last bracket.
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found
