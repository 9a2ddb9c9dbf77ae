"""The servers behind one address: a Service's address leads to one of its pods, another with each connection. Pure.

A server says in its tunnel where it itself can be dialled (ADDRESS). Where that is not the address that was dialled,
there may be more behind it; they are found by dialling again, until that brings nothing new.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from proxy.config import Endpoint

# So many pods of a Service get connections of one sidecar: the load of a Service comes from many sidecars, each of
# which finds others, so that eight each spread it.
MOST_SERVERS: Final = 8
# In a row. Half of the servers known, six in vain are 1 in 64; three quarters of them, 1 in 6. Each costs a handshake.
MOST_MISSES: Final = 6
# Between two: a handshake costs both sides milliseconds, and nobody waits for it.
PAUSE_SECONDS: Final = 0.5


class Servers:
    """What has been found behind one address."""

    __slots__ = ("_misses",)

    def __init__(self) -> None:
        self._misses = 0

    def is_new(self, server: Endpoint, others: Collection[Endpoint | None]) -> bool:
        """A tunnel leads to `server`; `others` is where the other tunnels to the same address lead."""
        if server in others:
            self._misses += 1
            return False
        self._misses = 0
        return True

    def wants_another(self, tunnels: int) -> bool:
        """Whether to dial once more, where so many `tunnels` stand."""
        return tunnels < MOST_SERVERS and self._misses < MOST_MISSES

    def changed(self) -> None:
        """A tunnel has gone: what was true of the servers may not be any more."""
        self._misses = 0
