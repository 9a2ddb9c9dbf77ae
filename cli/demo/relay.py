"""A plain relay of one TCP connection: bytes, ends and resets, both ways. The tap and the doors are made of it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

CHUNK: Final = 1 << 16

# Called with "client" or "server", whoever sent the bytes, before they are passed on.
See = Callable[[str, bytes], None]


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int], see: See | None = None
) -> None:
    """Connect the accepted stream to `target` until both directions have ended, or one side breaks off."""
    try:
        far_reader, far_writer = await asyncio.open_connection(*target, limit=CHUNK)
    except OSError:
        reset(writer)  # as a port answers that nobody listens on
        return
    for end in (writer, far_writer):
        # asyncio does so by itself only where the socket was made with IPPROTO_TCP, and one that was accepted is not.
        with suppress(OSError):  # it has been reset already, which reading it will show
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass("client", reader, far_writer, see))
            group.create_task(_pass("server", far_reader, writer, see))
    except* OSError:
        # One side broke off: the other must see a reset too, not an orderly end.
        reset(writer)
        reset(far_writer)
    for end in (writer, far_writer):
        end.close()
        with suppress(OSError):
            await end.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST: close() with a linger time of zero (socket(7))."""
    raw: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):  # it has been closed already
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _pass(side: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: See | None) -> None:
    while data := await reader.read(CHUNK):
        if see is not None:
            see(side, data)
        writer.write(data)
        await writer.drain()
    writer.write_eof()
