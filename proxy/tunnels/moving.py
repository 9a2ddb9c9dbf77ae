"""Bulk leaves its tunnel: a stream goes on in a TLS connection of its own, and no byte is lost or comes twice.

    client                                               server
      │  TLS, ALPN qbitel-move/1; the connection's id      │   finds the stream by its id, of the same peer
      │ ─────────────────────────────────────────────────▶ │
      │ ◀───────────────────────────────────── one byte 1  │
      │  MOVED, in the tunnel behind the last DATA         │   all has come: MOVED, and on in the new connection
      │ ─────────────────────────────────────────────────▶ │
      │ ◀────────────────── MOVED, behind the last DATA    │
      │  all has come: on in the new connection            │

The id is 16 random bytes that only the two sidecars know. Where the server does not find it (another worker, or another
pod behind the same address, answered) the stream stays where it is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pqtls import ClientConnection, ServerConnection, Session
from pqtls.events import ApplicationData, HandshakeCompleted, SessionReceived
from proxy.engine import ignore_session
from proxy.handshake import HandshakeFailed, HandshakeResult
from proxy.phases import Services
from proxy.tunnels.ends import NextConnection
from proxy.tunnels.frames import CONNECTION_ID_SIZE
from proxy.tunnels.stream import Stream

ACCEPTED: Final = b"\x01"
_REFUSED: Final = b"\x00"
_READ_SIZE: Final = 4096

_log = logging.getLogger("qbitel.proxy")


@dataclass(frozen=True, slots=True)
class Dialled:
    """A TLS connection to another sidecar, its handshake done."""

    wire: socket.socket
    connection: ClientConnection | ServerConnection
    result: HandshakeResult
    keep_session: Callable[[Session], None]


class Movable:
    """The streams of a process that may be moved, by their connection's id, and whose they are."""

    def __init__(self) -> None:
        self._streams: dict[bytes, tuple[Stream, HandshakeCompleted]] = {}

    def add(self, connection_id: bytes, stream: Stream, event: HandshakeCompleted) -> None:
        """A stream of the peer that `event` names. An id that is there already is somebody's mistake: it stays."""
        self._streams.setdefault(connection_id, (stream, event))

    def remove(self, connection_id: bytes) -> None:
        """It is over, or has moved."""
        self._streams.pop(connection_id, None)

    def find(self, connection_id: bytes, event: HandshakeCompleted) -> Stream | None:
        """The stream, where the peer of the new connection is the one that opened it."""
        stream, opened = self._streams.get(connection_id, (None, event))
        if stream is None or not stream.can_move or opened.peer_identity != event.peer_identity:
            return None
        return stream


async def ask(services: Services, stream: Stream, connection_id: bytes, dialled: Dialled) -> bool:
    """A client's: move `stream` to this connection. False: the server does not know it, and everything stays.

    Raises PeerError, HandshakeFailed, OSError and TimeoutError.
    """
    connection = dialled.connection
    connection.send_data(connection_id)
    await services.loop.sock_sendall(dialled.wire, connection.data_to_send())
    answer = dialled.result.first_plaintext or await _receive(services, dialled, len(ACCEPTED))
    if answer != ACCEPTED or not stream.can_move:
        return False
    stream.leave_for(NextConnection(dialled.wire, connection, services.scratch, dialled.keep_session))
    return True


async def answer(
    services: Services, movable: Movable, wire: socket.socket, connection: ServerConnection, result: HandshakeResult
) -> bool:
    """A server's: find the stream that the new connection is for. False: there is none, and the client was told."""
    dialled = Dialled(wire, connection, result, ignore_session)
    asked = result.first_plaintext
    if len(asked) < CONNECTION_ID_SIZE:
        asked += await _receive(services, dialled, CONNECTION_ID_SIZE - len(asked))
    stream = movable.find(asked, result.event)
    if stream is not None:
        stream.expect_move_to(NextConnection(wire, connection, services.scratch, ignore_session))
    connection.send_data(ACCEPTED if stream is not None else _REFUSED)
    try:
        await services.loop.sock_sendall(wire, connection.data_to_send())
    except OSError:
        # The client is gone, or will see that this connection is: the stream stays as long as it says nothing else.
        _log.debug("a connection that a stream was to move to broke")
    return stream is not None


async def _receive(services: Services, dialled: Dialled, size: int) -> bytes:
    """Read plaintext until there are `size` bytes of it, within the time that a client's first bytes have."""
    found = b""
    async with asyncio.timeout(services.limits.first_bytes_timeout):
        while len(found) < size:
            data = await services.loop.sock_recv(dialled.wire, _READ_SIZE)
            if not data:
                raise HandshakeFailed(
                    "the other side closed the connection that a stream was to move to", "handshake_reset"
                )
            dialled.connection.receive_data(data)
            for event in dialled.connection.events():
                if isinstance(event, ApplicationData):
                    found += event.data
                elif isinstance(event, SessionReceived):
                    dialled.keep_session(event.session)
    return found
