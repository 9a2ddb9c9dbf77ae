"""Two real sidecars, and what they hold: descriptors, memory, connections, tunnels."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.proxy.conftest import Running

KIB = 1024
# Set where the whole is asked for; see conftest.py.
SCALE = os.environ.get("QBITEL_SURVIVE")
MIB = 1024 * 1024


def variants(first: object, *others: object) -> list[object]:
    """Parameters of a test: all of them where the whole is asked for, else the first."""
    return [first, *others] if SCALE else [first]


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a sidecar and its workers hold: open descriptors, and bytes of memory of their own.

    Pages that are files (libraries) are left out: how many share them depends on who else runs on this machine.
    """

    descriptors: int
    memory: int


def usage_of(running: Running) -> Usage:
    """Ask the kernel."""
    ids = processes_of(running)
    return Usage(sum(len(_descriptors(one)) for one in ids), sum(map(_proportional, ids)))


def wait_for_descriptors(running: Running, most: int, patience: float = 60.0) -> None:
    """Wait until there are at most so many; or fail, and say which there are."""
    deadline = time.monotonic() + patience
    while sum(len(found := _descriptors(one)) for one in processes_of(running)) > most:
        assert time.monotonic() < deadline, f"more than {most} descriptors: {found}"
        time.sleep(0.05)


def processes_of(running: Running) -> list[int]:
    """The sidecar's process and its workers'."""
    first = running.process.pid
    return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]


def _descriptors(pid: int) -> list[str]:
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(path.readlink()))
    return found


def _proportional(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * KIB for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


@dataclasses.dataclass(frozen=True)
class Mesh:
    """An outbound sidecar that leads to an inbound one, which leads to an application."""

    outbound: Running
    inbound: Running

    @property
    def port(self) -> int:
        """Where applications dial."""
        return self.outbound.port("outbound")

    @property
    def sides(self) -> dict[str, Running]:
        """Both, by the direction of what they take."""
        return {"outbound": self.outbound, "inbound": self.inbound}

    def usage(self) -> dict[str, Usage]:
        """What each holds."""
        return {name: usage_of(side) for name, side in self.sides.items()}

    def open(self) -> int:
        """Connections of applications that are open in either."""
        return int(sum(side.metric("qbitel_connections_open") for side in self.sides.values()))

    def tunnels(self) -> int:
        """Tunnels that stand, counted at both ends."""
        return int(sum(side.metric("qbitel_tunnels_open") for side in self.sides.values()))

    def settle(self, patience: float = 60.0) -> None:
        """Wait until no connection of an application is left in either."""
        wait_until(lambda: self.open() == 0, "connections are left", patience)

    def check_alive(self) -> None:
        """Both run, and neither has met a bug of its own."""
        for name, side in self.sides.items():
            assert side.process.poll() is None, f"the {name} sidecar ended: {side.messages}"
            assert "a bug" not in side.messages, side.messages
            assert "Traceback" not in side.messages, side.messages


def wait_until(condition: Callable[[], object], what: str, patience: float = 60.0) -> None:
    """Wait until `condition` is true, or fail with `what`."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
