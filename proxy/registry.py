"""The live connections of a process: counted, swept for idleness, drained, and reset when time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from proxy.record import ConnectionRecord
from proxy.relay import End

# How often counters of living connections are brought up to date (Istio's telemetry reports TCP every 15 s; ours costs
# 5 ms for 10,000 connections), and how often idleness is looked for.
SWEEP_SECONDS: Final = 5.0


class Carrier(Protocol):
    """What moves a connection's bytes: a relay, or a stream of a tunnel."""

    @property
    def ended(self) -> bool: ...

    @property
    def moved(self) -> list[int]: ...

    def abort(self, end: End) -> None: ...


class Live(Protocol):
    """What the registry keeps: a connection, or a tunnel."""

    def sweep(self, now: float, idle_timeout: float) -> None:
        """Look whether it is idle or dead; `now` is the loop's time, both in seconds."""

    def end_if_revoked(self, revoked: frozenset[bytes]) -> bool:
        """Reset it where its peer is among the `revoked`."""

    def start_draining(self) -> None:
        """The process is about to end: what can be done so that it may?"""

    def end(self) -> None:
        """Reset it now; it leaves the registry soon after."""


class LiveConnection:
    """One application's connection: its record, and its relay or stream once there is one.

    `give_up` ends it where there is none yet.
    """

    __slots__ = ("_give_up", "_moved", "_since", "record", "relay")

    def __init__(self, record: ConnectionRecord, now: float, give_up: Callable[[], object]) -> None:
        self.record = record
        self._give_up = give_up
        self.relay: Carrier | None = None
        self._moved = -1
        self._since = now

    def relaying(self, relay: Carrier) -> None:
        """The relay is about to start, or the stream is open."""
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

    def start_draining(self) -> None:
        """A connection ends when its application wants it."""

    def end(self) -> None:
        """Reset it now. Its record is written, and it goes."""
        if self.relay is not None:
            self.relay.abort(End.DRAINED)
        else:
            self._give_up()


class Registry:
    """All live connections, and the wait for the last of them."""

    def __init__(self) -> None:
        self._live: set[Live] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._live)

    @property
    def connections(self) -> int:
        """How many are connections of applications, and no tunnels."""
        return sum(isinstance(one, LiveConnection) for one in self._live)

    def add(self, connection: Live) -> None:
        """A connection was accepted, or a tunnel stands."""
        self._live.add(connection)
        self._empty.clear()

    def remove(self, connection: Live) -> None:
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
        """Let all end by themselves, at most `timeout` seconds. Whether none is left."""
        for connection in tuple(self._live):
            connection.start_draining()
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def end_all(self) -> None:
        """Reset every connection and wait until their records are written."""
        for connection in tuple(self._live):
            connection.end()
        await self._empty.wait()
