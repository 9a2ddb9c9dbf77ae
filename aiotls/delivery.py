"""Handing plaintext to a protocol as its kind takes it."""

from __future__ import annotations

import asyncio
from typing import cast


def deliver(protocol: asyncio.BaseProtocol, plaintext: bytes) -> None:
    """Give all of `plaintext` to a Protocol at once, or to a BufferedProtocol in pieces as large as its buffers.

    Raises what the protocol raises, and RuntimeError where it gives an empty buffer.
    """
    if not isinstance(protocol, asyncio.BufferedProtocol):
        cast("asyncio.Protocol", protocol).data_received(plaintext)
        return
    rest = memoryview(plaintext)
    while rest:
        with memoryview(protocol.get_buffer(len(rest))) as given, given.cast("B") as buffer:
            size = min(len(buffer), len(rest))
            if not size:
                raise RuntimeError("get_buffer() returned an empty buffer")
            buffer[:size] = rest[:size]
        protocol.buffer_updated(size)
        rest = rest[size:]
