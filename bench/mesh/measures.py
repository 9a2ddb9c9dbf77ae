"""What is measured: a load, and the figures that come of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from bench.mesh.load import Found
from bench.mesh.processes import Failed, Pair

_PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Measure:
    """A load. `full_handshakes`: contenders that never resume take part, and they alone beside no proxy."""

    key: str
    name: str
    kind: str
    options: dict[str, int]
    full_handshakes: bool = False

    def take(self, pair: Pair, seconds: float) -> Found:
        """Put the load on `pair` for `seconds`."""
        told = {"kind": self.kind, "port": pair.port, "pids": pair.pids, "seconds": seconds, **self.options}
        done = subprocess.run(
            _LOAD, input=json.dumps(told) + "\n", capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        if done.returncode:
            raise Failed(f"{self.name}: {done.stderr.strip().splitlines()[-1]}")
        found: Found = json.loads(done.stdout)
        return found


_LOAD: Final = [sys.executable, "-m", "bench.mesh.load"]

MEASURES: Final = (
    Measure("bulk-1", "bulk, 1 stream", "bulk", {"streams": 1}),
    Measure("bulk-4", "bulk, 4 streams", "bulk", {"streams": 4}),
    *(
        Measure(f"requests-{connections}-{size}", f"requests, {connections} × {size} B", "requests",
                {"connections": connections, "size": size})
        for size in (64, 1024) for connections in (1, 32, 256)
    ),
    *(
        Measure(f"connections-{concurrency}", f"new connections, {concurrency} at a time", "connections",
                {"concurrency": concurrency})
        for concurrency in (1, 16)
    ),
    Measure("full-16", "full handshakes, 16 at a time", "connections", {"concurrency": 16}, full_handshakes=True),
)  # fmt: skip


@contextmanager
def idle_connections(pair: Pair, count: int) -> Iterator[None]:
    """`count` connections are open within, and silent."""
    told: dict[str, Any] = {"kind": "idle", "port": pair.port, "pids": [], "connections": count}
    with subprocess.Popen(_LOAD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdin is not None  # noqa: S101  # both are pipes
        assert load.stdout is not None  # noqa: S101
        load.stdin.write(json.dumps(told) + "\n")
        load.stdin.flush()
        if not load.stdout.readline():
            raise Failed(f"{count} idle connections: not all of them stand")
        yield
        load.stdin.close()
