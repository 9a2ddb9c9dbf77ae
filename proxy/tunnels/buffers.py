"""The buffers that all tunnels of a process share: each turn of one runs to its end before the next."""

from __future__ import annotations

from typing import Final

from proxy.engine import READ_SIZE, Scratch
from proxy.tunnels.frames import HEADER_SIZE, MAX_CONTROL

# What one tunnel collects in a turn before it is sent. Scratch.write has room for it as records of any size.
OUT_SIZE: Final = READ_SIZE
# Kept for the next turn: as many as tunnels that have something to say in one turn. Pages that were never written to
# cost nothing.
_KEPT: Final = 16


class TunnelBuffers:
    """`read` for records that come, `plain` for what is in them, `sealed` for records that go; and out buffers."""

    __slots__ = ("_free", "plain", "read", "sealed")

    def __init__(self, scratch: Scratch) -> None:
        self.read = scratch.read
        # In front of what is opened stands the beginning of a frame that was not whole.
        self.plain = memoryview(bytearray(len(scratch.read) + HEADER_SIZE + MAX_CONTROL))
        self.sealed = scratch.write
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """A buffer of OUT_SIZE bytes and one, which seal_into needs."""
        return self._free.pop() if self._free else memoryview(bytearray(OUT_SIZE + 1))

    def give_back(self, buffer: memoryview) -> None:
        """Its bytes are of no use any more."""
        if len(self._free) < _KEPT:
            self._free.append(buffer)
