"""Memory: the buffers that all connections of a thread share, and what one connection still has to send."""

from __future__ import annotations

import socket
import threading
from collections import deque
from itertools import islice
from typing import Final

from pqtls.record import MAX_RECORD

# One read or write at most: sixteen full TLS records, as asyncio's own transports read (256 KiB).
PIECE: Final = 256 * 1024
# A record gains header, content type and tag (RFC 8446 §5.2), and a peer may ask for fragments as small as 63 bytes
# (RFC 8449 §4: 64 with the content type).
_RECORD_OVERHEAD: Final = 5 + 1 + 16
_SMALLEST_FRAGMENT: Final = 63
# What goes in front or in between: a KeyUpdate. Far less than this.
_CONTROL_RECORDS: Final = 1024
# Far below the kernel's IOV_MAX (1024), and enough that small writes leave together.
_CHUNKS_PER_SEND: Final = 64


class Scratch:
    """Buffers whose content is needed only while one call of a transport runs, from its begin to its end.

    The ciphertext of an unfinished record stands in front of the next read. `plaintext` has one byte more for the
    content type that seal_into puts behind the last fragment.
    """

    __slots__ = ("ciphertext", "plaintext", "records")

    def __init__(self) -> None:
        self.ciphertext = memoryview(bytearray(MAX_RECORD + PIECE))
        self.plaintext = memoryview(bytearray(MAX_RECORD + PIECE + 1))
        most_records = -(-PIECE // _SMALLEST_FRAGMENT)
        self.records = memoryview(bytearray(PIECE + most_records * _RECORD_OVERHEAD + _CONTROL_RECORDS))


class _PerThread(threading.local):
    """A loop runs in one thread, so what a thread has to itself, no other loop can be using."""

    def __init__(self) -> None:
        self.scratch = Scratch()


_per_thread = _PerThread()


def scratch() -> Scratch:
    """The buffers of this thread."""
    return _per_thread.scratch


class Outbox:
    """Bytes that the kernel has not taken yet, in order. `size` is their number."""

    __slots__ = ("_chunks", "size")

    def __init__(self) -> None:
        self._chunks: deque[memoryview] = deque()
        self.size = 0

    def send(self, sock: socket.socket, data: memoryview) -> None:
        """Send `data` behind all that waits; keep a copy of what the kernel does not take. Raises OSError."""
        taken = 0
        if not self._chunks:
            try:
                taken = sock.send(data)
            except (BlockingIOError, InterruptedError):
                taken = 0
        if taken < len(data):
            self._chunks.append(memoryview(bytes(data[taken:])))
            self.size += len(data) - taken

    def flush(self, sock: socket.socket) -> int:
        """Send what waits, as far as the kernel takes it; return the bytes taken. Raises OSError."""
        total = 0
        while self._chunks:
            try:
                sent = sock.sendmsg(islice(self._chunks, _CHUNKS_PER_SEND))
            except (BlockingIOError, InterruptedError):
                break
            total += sent
            self._forget(sent)
        self.size -= total
        return total

    def clear(self) -> None:
        """Throw away what waits."""
        self._chunks.clear()
        self.size = 0

    def _forget(self, sent: int) -> None:
        chunks = self._chunks
        while chunks and sent >= len(chunks[0]):
            sent -= len(chunks.popleft())
        if sent:
            chunks[0] = chunks[0][sent:]
