"""The live connections of a process: counted, swept for idleness, drained, and reset when time is up."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from proxy.access_log import Fields
from proxy.config import Direction
from proxy.record import ConnectionRecord
from proxy.relay import End

if TYPE_CHECKING:
    from proxy.policy.standing import Standing

# How often counters of living connections are brought up to date (Istio's telemetry reports TCP every 15 s; ours costs
# 5 ms for 10,000 connections), and how often idleness is looked for.
SWEEP_SECONDS: Final = 5.0

_log = logging.getLogger("qbitel.proxy")


class Carrier(Protocol):
    """What moves a connection's bytes: a relay, or a stream of a tunnel."""

    @property
    def ended(self) -> bool: ...

    @property
    def moved(self) -> list[int]: ...

    @property
    def waiting(self) -> int:
        """Bytes that one of its sides has not taken yet."""
        ...

    def peer_vanished(self, seconds: float) -> bool: ...

    def abort(self, end: End, error: Exception | None = None) -> None: ...


class Live(Protocol):
    """What the registry keeps: a connection, or a tunnel."""

    def sweep(self, now: float, idle_timeout: float) -> None:
        """Look whether it is idle or dead; `now` is the loop's time, both in seconds."""

    def end_if_revoked(self, revoked: frozenset[bytes]) -> bool:
        """Reset it where its peer is among the `revoked`."""

    @property
    def direction(self) -> Direction:
        """Which way it goes."""
        ...

    def start_draining(self) -> None:
        """The process is about to end: what can be done so that it may?"""

    def finish(self) -> None:
        """No connection of an application is left: end it in order, where that can be done at once."""

    def describe(self, now: float) -> Fields:
        """What an operator is shown of it; `now` is the loop's time."""

    def end(self) -> None:
        """Reset it now; it leaves the registry soon after."""


class LiveConnection:
    """One application's connection: its record, and its relay or stream once there is one.

    `give_up` ends it where there is none yet.
    """

    __slots__ = ("_began", "_give_up", "_moved", "_since", "record", "relay", "standing", "tunnel")

    def __init__(self, record: ConnectionRecord, now: float, give_up: Callable[[], object]) -> None:
        self.record = record
        self._give_up = give_up
        self.relay: Carrier | None = None
        self.tunnel = ""  # the connection id of the one that carries it
        self.standing: Standing | None = None  # inbound: why the gate let it in
        self._moved = -1
        self._since = self._began = now

    @property
    def direction(self) -> Direction:
        """Which way it goes."""
        return self.record.direction

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

    def end_if_stalled(self, now: float, stall_timeout: float) -> None:
        """Reset it where bytes wait, and nothing has moved for `stall_timeout` seconds; after sweep()."""
        relay = self.relay
        if relay is not None and not relay.ended and now - self._since >= stall_timeout and relay.waiting:
            relay.abort(End.STALLED)

    def end_if_vanished(self, now: float, silence: float) -> None:
        """Reset it where nothing has moved for `silence` seconds, and the peer's machine is gone; after sweep()."""
        relay = self.relay
        if relay is not None and not relay.ended and now - self._since >= silence and relay.peer_vanished(silence):
            relay.abort(End.PEER_SILENT)

    def end_if_revoked(self, revoked: frozenset[bytes]) -> bool:
        """Reset it where its peer is among the `revoked`. A handshake under way is judged by what it began with."""
        if self.relay is None or self.relay.ended or revoked.isdisjoint(self.record.peer_path_ids):
            return False
        self.relay.abort(End.REVOKED)
        return True

    def start_draining(self) -> None:
        """A connection ends when its application wants it."""

    def finish(self) -> None:
        """The same."""

    def describe(self, now: float) -> Fields:
        """What an operator is shown of it; `now` is the loop's time."""
        if self.relay is not None and not self.relay.ended:
            self.record.carried(*self.relay.moved)
        return {
            **self.record.describe(),
            "state": "open" if self.relay is not None else "opening",
            "age_s": round(now - self._began, 1),
            "idle_s": round(now - self._since, 1) if self._moved >= 0 else None,
            "tunnel": self.tunnel or None,
            "bytes_waiting": self.relay.waiting if self.relay is not None else 0,
        }

    def end(self) -> None:
        """Reset it now. Its record is written, and it goes."""
        if self.relay is not None:
            self.relay.abort(End.DRAINED)
        else:
            self._give_up()

    def gone(self) -> None:
        """It has left the registry: what it held at the gate is free again, and so is what carried it.

        A stream knows its connection by its owner: nothing of the two is left to the garbage collector.
        """
        self.relay = None
        if self.standing is not None:
            self.standing.leave()
            self.standing = None


class Registry:
    """All live connections and tunnels of a process, and the waits for their end. Belongs to one loop."""

    def __init__(self) -> None:
        # In the order in which they came, for an operator who reads them page by page.
        self._live: dict[Live, None] = {}
        self._connections = 0
        self._accepted = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._no_connections = asyncio.Event()
        self._no_connections.set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._live)

    @property
    def connections(self) -> int:
        """How many are connections of applications, and no tunnels."""
        return self._connections

    def add(self, connection: Live) -> None:
        """A connection was accepted, or a tunnel stands."""
        if not self._live:
            self._empty.clear()
        self._live[connection] = None
        if isinstance(connection, LiveConnection):
            self._accepted += 1
            self._connections += 1
            if self._connections == 1:
                self._no_connections.clear()

    def remove(self, connection: Live) -> None:
        """It is over, or is not what it was taken for."""
        if connection not in self._live:
            return
        del self._live[connection]
        if isinstance(connection, LiveConnection):
            connection.gone()
            self._connections -= 1
            if not self._connections:
                self._no_connections.set()
        if not self._live:
            self._empty.set()

    def sweep(
        self, now: float, idle_timeout: float, stall_timeout: float = math.inf, silence: float = math.inf
    ) -> None:
        """Look at every connection once."""
        for connection in tuple(self._live):
            try:
                connection.sweep(now, idle_timeout)
                if isinstance(connection, LiveConnection):
                    connection.end_if_stalled(now, stall_timeout)
                    connection.end_if_vanished(now, silence)
            except Exception:  # noqa: BLE001  # one connection's bug must not end all the others
                _log.exception("a bug kept one connection from being looked after, it is reset; please report it")
                _end_broken(connection)

    def end_revoked(self, revoked: frozenset[bytes]) -> int:
        """Reset every connection whose peer is among the `revoked` (pqtls' path ids); return how many."""
        return sum([connection.end_if_revoked(revoked) for connection in tuple(self._live)])

    def page(self, offset: int, limit: int, *, tunnels: bool) -> tuple[Live, ...]:
        """At most `limit` of the tunnels, or of the connections, behind the first `offset` of them, oldest first."""
        wanted = (one for one in self._live if isinstance(one, LiveConnection) is not tunnels)
        return tuple(itertools.islice(wanted, offset, offset + limit))

    def count(self, *, tunnels: bool) -> int:
        """How many tunnels, or connections, there are."""
        return len(self._live) - self._connections if tunnels else self._connections

    def start_draining(self) -> None:
        """Ask those who dialled us to open nothing more in tunnels that stand. Our own application goes on dialling."""
        self.draining = True
        for connection in tuple(self._live):
            if connection.direction is Direction.INBOUND:
                connection.start_draining()

    async def quiet(self, seconds: float) -> None:
        """Return when no connection is left, and none has come for `seconds` (since now, at first)."""
        while True:
            seen = self._accepted
            await asyncio.sleep(seconds)
            while self._connections:
                await self._no_connections.wait()
            if self._accepted == seen:
                return

    async def end_all(self) -> None:
        """End what can end in order, reset every other connection, and wait until their records are written."""
        if not self._connections:
            for connection in tuple(self._live):
                connection.finish()
        for connection in tuple(self._live):
            connection.end()
        await self._empty.wait()


def _end_broken(connection: Live) -> None:
    try:
        connection.end()
    except Exception:  # noqa: BLE001  # see sweep
        _log.exception("a bug kept it from being reset, too; please report it")
