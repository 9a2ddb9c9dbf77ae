"""What the init step costs: peak memory and CPU time of the script in a control group of its own.

    python -m tests.init.measuring          # as root; `make measure-init`

Each figure is of one run in a fresh network namespace, the shell included, as a container runtime starts it. The peak
is the control group's own count: anonymous memory, page tables, kernel memory, and those file pages that nobody had
read before; `cold` is with the programs' files dropped from the page cache first.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from init.config import BackendChoice, InterceptionConfig
from init.script import render_script
from tests.init.conftest import Namespace

ROOT: Final = Path("/sys/fs/cgroup")
RUNS: Final = 15
# What a run reads, apart from libc and the loader, which every process has mapped.
FILES: Final = (
    "usr/sbin/xtables-*-multi",
    "usr/bin/dash",
    *("usr/sbin/ip", "bin/ip", "sbin/ip", "usr/bin/ip"),
    *("usr/lib/*/xtables/*.so", "usr/lib/*/libxtables.so*", "usr/lib/*/libnftnl.so*", "usr/lib/*/libmnl.so*"),
    *("usr/lib/*/libip4tc.so*", "usr/lib/*/libip6tc.so*"),
)


class NoControlGroup(Exception):
    """This machine lets nobody here make a control group that counts memory; the message says why."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: bytes at the peak, and seconds of CPU time, user and system."""

    peak: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Group:
    """A control group: the folders that a process joins, and the files that tell its peak and its CPU time."""

    folders: tuple[Path, ...]
    peak: Path
    time: Path

    def cpu(self) -> float:
        text = self.time.read_text()
        if self.time.name == "cpuacct.usage":
            return int(text) / 1e9
        return int(next(line for line in text.splitlines() if line.startswith("usage_usec")).split()[1]) / 1e6


@contextmanager
def control_group() -> Iterator[Group]:
    """Make a control group, of version 2 where that counts memory, else of version 1. Raises NoControlGroup."""
    name = f"qbitel-init-{os.getpid()}"
    try:
        if "memory" in _read(ROOT / "cgroup.subtree_control"):
            folder = ROOT / name
            group = Group((folder,), folder / "memory.peak", folder / "cpu.stat")
        else:
            memory, cpu = ROOT / "memory" / name, ROOT / "cpuacct" / name
            group = Group((memory, cpu), memory / "memory.max_usage_in_bytes", cpu / "cpuacct.usage")
        for folder in group.folders:
            folder.mkdir()
    except OSError as error:
        raise NoControlGroup(f"no control group of ours can be made: {error}") from error
    try:
        if not (group.peak.exists() and group.time.exists()):
            raise NoControlGroup(f"the kernel does not tell the peak: there is no {group.peak.name}")
        yield group
    finally:
        for folder in group.folders:
            folder.rmdir()


def measure(namespace: Namespace, script: str, *, cold: bool = False) -> Cost:
    """Run `script` in `namespace` as an init container does, in a fresh control group."""
    if cold:
        forget_files()
    with control_group() as group:
        join = "".join(f"echo $$ >{folder}/cgroup.procs && " for folder in group.folders)
        before = group.cpu()
        ended = namespace.run("dash", "-c", f'{join}exec dash -c "$0"', script)
        assert "in place" in ended.stdout
        return Cost(int(group.peak.read_text()), group.cpu() - before)


def forget_files() -> None:
    for pattern in FILES:
        for path in Path("/").glob(pattern):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def main() -> None:
    print("| pod | back end | run | peak, MiB | cold, MiB | CPU, ms (median) | fastest | slowest |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for version in (4, 6):
        for backend in (BackendChoice.NFT, BackendChoice.LEGACY):
            script = render_script(InterceptionConfig(backend=backend))
            runs: dict[str, list[Cost]] = {"first": [], "again": []}
            cold = 0
            for number in range(RUNS + 1):
                namespace = Namespace()
                if version == 6:
                    namespace.run("ip", "address", "add", "2001:db8::2/64", "dev", "lo", "nodad")
                if number == RUNS:
                    cold = measure(namespace, script, cold=True).peak
                else:
                    runs["first"].append(measure(namespace, script))
                    runs["again"].append(measure(namespace, script))
                namespace.close()
            pod = "IPv4" if version == 4 else "IPv4 and IPv6"
            for name, costs in runs.items():
                times = sorted(cost.cpu * 1000 for cost in costs)
                peak = max(cost.peak for cost in costs) / 2**20
                shown = f"{cold / 2**20:.1f}" if name == "first" else ""
                spread = f"{statistics.median(times):.1f} | {times[0]:.1f} | {times[-1]:.1f}"
                print(f"| {pod} | {backend.value} | {name} | {peak:.1f} | {shown} | {spread} |", flush=True)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this needs root: it makes network namespaces and control groups")
    main()
