"""What processes use, as the kernel counts it: CPU time and memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_MIB = 1024


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of all threads, user and system (the first number of schedstat, in nanoseconds)."""
    return sum(
        int(file.read_text().split()[0]) / 1e9 for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def memory_mib(pids: Iterable[int], what: str) -> float:
    """`what` is Pss or Rss, in MiB, over all `pids`."""
    found = 0
    for pid in pids:
        match = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        if match is None:
            raise RuntimeError(f"the kernel does not say the {what} of a process")
        found += int(match[1])
    return found / _MIB
