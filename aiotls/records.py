"""Between the engine and the socket: what was read becomes plaintext, what is to be sent becomes records.

The hot path: all buffers are those of the thread, and nothing is kept from call to call but the ciphertext of a record
that is not yet whole.
"""

from __future__ import annotations

import socket

from aiotls.buffers import PIECE, scratch
from pqtls import Connection


class Records:
    """One connection's, after its handshake."""

    __slots__ = ("_connection", "_partial", "_sock")

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self._sock = sock
        self._connection = connection
        self._partial = connection.take_buffered()  # ciphertext of a record that is not yet whole

    def receive(self) -> bytes:
        """One read; its plaintext. Raises OSError, and PeerError also for an end without close_notify."""
        buffers = scratch()
        kept = len(self._partial)
        ciphertext = buffers.ciphertext
        ciphertext[:kept] = self._partial
        received = self._sock.recv_into(ciphertext[kept : kept + PIECE])
        if not received:
            self._connection.receive_eof()
        total = kept + received
        consumed, produced = self._connection.open_into(ciphertext[:total], buffers.plaintext)
        self._partial = bytes(ciphertext[consumed:total])
        return bytes(buffers.plaintext[:produced])

    def discard(self) -> bool:
        """Read on without a look at it; False at the end. Raises OSError."""
        return bool(self._sock.recv_into(scratch().ciphertext))

    def seal(self, plaintext: memoryview) -> memoryview:
        """At most PIECE bytes as records, in a buffer that holds them until the next call."""
        buffers = scratch()
        length = len(plaintext)
        buffers.plaintext[:length] = plaintext
        written = self._connection.seal_into(buffers.plaintext, length, buffers.records)
        return buffers.records[:written]
