"""How many processors' time this process may use: those that it may run on, and what a container's limit leaves it.

A limit of the kernel's control groups (`resources.limits.cpu`) is time in each tenth of a second; who has used it up
stands still for the rest of that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MOUNT: Final = Path("sys/fs/cgroup")
# Of cgroup v1 the controller has a hierarchy of its own, mounted under one of these names.
_V1: Final = ("cpu", "cpu,cpuacct")


def available(root: Path = Path("/"), processors: int | None = None) -> float:
    """The processors' time that this process may use, in processors: the least of what there is and every limit.

    A limit that cannot be read is none, as for a process outside of any container. `processors`: None for those that
    the process may run on.
    """
    if processors is None:
        processors = len(os.sched_getaffinity(0))
    return min([float(processors), *_limits(root)])


def _limits(root: Path) -> list[float]:
    found: list[float] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            found += [_v2(folder) for folder in _upwards(root / _MOUNT, path)]
        elif "cpu" in controllers.split(","):
            found += [_v1(folder) for name in _V1 for folder in _upwards(root / _MOUNT / name, path)]
    return [limit for limit in found if limit > 0]


def _upwards(mount: Path, path: str) -> list[Path]:
    """The group's folder and those above it; a container may see its own group as the mount itself, by another path."""
    folders = [mount]
    for part in Path(path).parts:
        if part not in ("/", ".."):
            folders.append(folders[-1] / part)
    return folders


def _v2(folder: Path) -> float:
    """`cpu.max`: microseconds in each period, or "max"."""
    return _quotient(*_read(folder / "cpu.max").split()[:2])


def _v1(folder: Path) -> float:
    return _quotient(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _quotient(quota: str = "", period: str = "") -> float:
    """0.0 for no limit: "max", -1, or what is not there."""
    if not (quota.isascii() and quota.isdigit() and period.isascii() and period.isdigit()) or not int(period):
        return 0.0
    return int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii", errors="replace")
    except OSError:
        return ""
