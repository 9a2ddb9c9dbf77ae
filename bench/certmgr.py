"""The authority under load: certificates a second and core, how long each takes, and the memory for 10,000 workloads.

The server is one process and the clients are another one. A rate "per core" is what one core of CPU time of the server
makes: certificates over its CPU seconds, so that the clients' own work does not count, though on a small machine they
contend for the cores. Each kind of proof is asked over kept connections, as an agent for a whole node would, and with a
connection for each certificate, as sidecars do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.certmgr_load import Ask, Connection, KeyAndBody, Target, closed_loop, cpu_seconds, open_loop, resident
from mesh import names

_COUNT: Final = 1500  # of each kind, at full load; half as many at half load
_WORKLOADS: Final = 10_000
_CONCURRENCY: Final = 16  # clients at once at full load: enough that the server never waits
_KEYS: Final = 64  # made before: the authority does not look at whether it has seen a key
_WIDTH: Final = 44


def main() -> None:
    """Print the table."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; profile qbitel, provider cryptography")
    print(f"load before: {os.getloadavg()[0]:.1f}")  # others' work: rates and times are worth what this allows
    with _server() as (pid, target, folder):
        asyncio.run(_Bench(pid, target, folder).run())


@contextlib.contextmanager
def _server() -> Iterator[tuple[int, Target, Path]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "bench.certmgr_server", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                port = int(process.stdout.readline()) if process.stdout else 0
                yield process.pid, Target(port, (folder / names.ROOTS_FILE).read_bytes()), folder
            finally:
                process.send_signal(signal.SIGTERM)


class _Bench:
    def __init__(self, pid: int, target: Target, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self._port = target.port
        self._target = target
        self._nobody = target.config()
        self._keys = [KeyAndBody() for _ in range(_KEYS)]

    async def run(self) -> None:
        """One row per kind of proof and connection, then the cold start."""
        await self._token_alone(0)  # what is made at the first request is not measured
        start = resident(self._pid)
        credentials = [key.credential(await self._token_alone(number)) for number, key in enumerate(self._keys)]
        self._shown = [self._target.config(credential) for credential in credentials]
        print(f"\n{'':<{_WIDTH}} {'/s/core':>8} {'/s':>6} {'CPU ms':>7}   {'full load':^15}   {'half load':^15}")
        print(f"{'':<{_WIDTH}} {'':>8} {'':>6} {'':>7}   {'p50':>7} {'p99':>7}   {'p50':>7} {'p99':>7}  ms")
        await self._row_kept("token, kept connections", shown=False)
        await self._row("token, a connection each", self._token_alone)
        await self._row_kept("certificate, kept connections", shown=True)
        await self._row("certificate, a connection each", self._certificate_alone)
        await self._cold_start()
        sizes = [path.stat().st_size for path in self._folder.glob("peers-*")]
        print(
            f"the list of peers: {len(sizes)} documents of at most {max(sizes) / 1024:.0f} KiB, "
            f"{sum(sizes) / 1024:.0f} in all"
        )
        print(f"\nmemory: {start / 2**20:.0f} MiB at the start, {resident(self._pid) / 2**20:.0f} MiB now")

    async def _token_alone(self, number: int) -> bytes:
        connection = await Connection.open(self._port, self._nobody)
        answer = await connection.ask(self._keys[number % _KEYS].request(f"workload-{number}"))
        await connection.close()
        return answer

    async def _certificate_alone(self, number: int) -> bytes:
        connection = await Connection.open(self._port, self._shown[number % _KEYS])
        answer = await connection.ask(self._keys[number % _KEYS].request())
        await connection.close()
        return answer

    async def _row_kept(self, what: str, *, shown: bool) -> None:
        configs = self._shown if shown else [self._nobody] * _KEYS
        idle = [await Connection.open(self._port, configs[number]) for number in range(_CONCURRENCY)]
        every = list(idle)

        async def ask(number: int) -> None:
            # At half load more may be under way for a moment than there are connections: one more is opened then.
            connection = idle.pop() if idle else await Connection.open(self._port, configs[number % _KEYS])
            if connection not in every:
                every.append(connection)
            await connection.ask(self._keys[number % _KEYS].request("" if shown else f"workload-{number}"))
            idle.append(connection)

        await self._row(what, ask)
        await asyncio.gather(*(connection.close() for connection in every))

    async def _row(self, what: str, ask: Ask) -> None:
        before = cpu_seconds(self._pid)
        full = await closed_loop(ask, _COUNT, _CONCURRENCY)
        cpu = (cpu_seconds(self._pid) - before) / _COUNT
        half = await open_loop(ask, _COUNT // 2, full.rate / 2)
        print(
            f"{what:<{_WIDTH}} {1 / cpu:>8.0f} {full.rate:>6.0f} {cpu * 1e3:>7.2f}   "
            f"{full.percentile(50):>7.1f} {full.percentile(99):>7.1f}   "
            f"{half.percentile(50):>7.1f} {half.percentile(99):>7.1f}"
        )

    async def _cold_start(self) -> None:
        before = cpu_seconds(self._pid)
        taken = await closed_loop(self._token_alone, _WORKLOADS, 4 * _CONCURRENCY)
        cpu = cpu_seconds(self._pid) - before
        print(
            f"\n{_WORKLOADS} workloads from a cold start, a connection and a token each: {taken.elapsed:.0f} s, "
            f"{cpu:.0f} s of CPU; p50 {taken.percentile(50):.0f} ms, p99 {taken.percentile(99):.0f} ms"
        )
