"""The live connections of a process: counted, swept for idleness, drained, and reset when time is up."""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.record import ConnectionRecord
from proxy.relay import End, Relay

# How often counters of living connections are brought up to date (Istio's telemetry reports TCP every 15 s; ours costs
# 5 ms for 10,000 connections), and how often idleness is looked for.
SWEEP_SECONDS: Final = 5.0


class LiveConnection:
    """One accepted connection: its task, its record, and its relay once there is one."""

    __slots__ = ("_moved", "_since", "record", "relay", "task")

    def __init__(self, task: asyncio.Task[None], record: ConnectionRecord, now: float) -> None:
        self.task = task
        self.record = record
        self.relay: Relay | None = None
        self._moved = -1
        self._since = now

    def relaying(self, relay: Relay) -> None:
        """The relay is about to start."""
        self.relay = relay
        self.record.relaying()

    def sweep(self, now: float, idle_timeout: float) -> None:
        """Bring the counters up to date, and end the relay where nothing has moved for `idle_timeout` seconds."""
        if self.relay is None or self.relay.ended:
            return
        self.record.carried(*self.relay.moved)
        moved = sum(self.relay.moved)
        if moved != self._moved:
            self._moved, self._since = moved, now
        elif now - self._since >= idle_timeout:
            self.relay.abort(End.IDLE)

    def end_if_revoked(self, revoked: frozenset[bytes]) -> bool:
        """Reset it where its peer is among the `revoked`. A handshake under way is judged by what it began with."""
        if self.relay is None or self.relay.ended or revoked.isdisjoint(self.record.peer_path_ids):
            return False
        self.relay.abort(End.REVOKED)
        return True

    def end(self) -> None:
        """Reset it now. Its task writes the record and goes."""
        if self.relay is not None:
            self.relay.abort(End.DRAINED)
        else:
            self.task.cancel()


class Registry:
    """All live connections, and the wait for the last of them."""

    def __init__(self) -> None:
        self._live: set[LiveConnection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._live)

    def add(self, connection: LiveConnection) -> None:
        """A connection was accepted."""
        self._live.add(connection)
        self._empty.clear()

    def remove(self, connection: LiveConnection) -> None:
        """It is over."""
        self._live.discard(connection)
        if not self._live:
            self._empty.set()

    def sweep(self, now: float, idle_timeout: float) -> None:
        """Look at every connection once."""
        for connection in tuple(self._live):
            connection.sweep(now, idle_timeout)

    def end_revoked(self, revoked: frozenset[bytes]) -> int:
        """Reset every connection whose peer is among the `revoked` (pqtls' path ids); return how many."""
        return sum([connection.end_if_revoked(revoked) for connection in tuple(self._live)])

    async def drained(self, timeout: float) -> bool:
        """Wait until none is left, at most `timeout` seconds. Whether none is."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def end_all(self) -> None:
        """Reset every connection and wait until their records are written."""
        connections = tuple(self._live)
        for connection in connections:
            connection.end()
        await asyncio.gather(*(connection.task for connection in connections), return_exceptions=True)
