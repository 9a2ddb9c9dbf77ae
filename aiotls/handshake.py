"""A TLS connection's handshake over a connected, non-blocking socket, within a deadline.

Whatever ends it, the peer hears the alert that the engine names, and the caller gets an error that says whose fault it
was. The socket stays the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from typing import Final

from aiotls.errors import HandshakeTimeout, of_peer_error
from pqtls import ApplicationData, Connection, Event, HandshakeCompleted, PeerError, Session, SessionReceived

# A flight has some 14 KB: a leaf with ML-DSA-87 and the signature over the handshake.
_READ_SIZE: Final = 16 * 1024
# Seconds that a peer has to read our alert and close. A socket that is closed over unread bytes sends RST instead of
# FIN, and RST makes the peer's kernel throw the alert away; a second holds some round trips to anywhere.
LINGER: Final = 1.0


@dataclass(frozen=True, slots=True)
class Established:
    """A connection after its handshake; `plaintext` and `sessions` came along with the peer's last flight."""

    connection: Connection
    completed: HandshakeCompleted
    plaintext: bytes = field(repr=False)
    sessions: tuple[Session, ...]


async def shake_hands(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, connection: Connection, timeout: float
) -> Established:
    """Complete the handshake within `timeout` seconds.

    Raises PeerFailed where the peer is at fault, HandshakeTimeout, or the OSError that broke the connection.
    """
    try:
        async with asyncio.timeout(timeout) as deadline:
            events = await _exchange(loop, sock, connection)
    except PeerError as error:
        await _part(loop, sock, connection.data_to_send())
        raise of_peer_error(error) from error
    except TimeoutError:
        if deadline.expired():
            raise HandshakeTimeout(timeout) from None
        raise  # ETIMEDOUT of the kernel's, which is another thing
    completed, *behind = events
    if not isinstance(completed, HandshakeCompleted):
        raise TypeError(f"the engine's first event is {completed!r}")
    return Established(
        connection,
        completed,
        # A client may send its first data right behind its Finished, and they may come in one read.
        b"".join(event.data for event in behind if isinstance(event, ApplicationData)),
        tuple(event.session for event in behind if isinstance(event, SessionReceived)),
    )


async def _exchange(loop: asyncio.AbstractEventLoop, sock: socket.socket, connection: Connection) -> list[Event]:
    """Send and receive until the engine has events: the first of all is HandshakeCompleted."""
    while True:
        if outgoing := connection.data_to_send():
            await _send_all(loop, sock, outgoing, connection)
        if events := connection.events():
            return events
        data = await loop.sock_recv(sock, _READ_SIZE)
        if data:
            connection.receive_data(data)
        else:
            connection.receive_eof()


async def _send_all(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, outgoing: bytes, connection: Connection
) -> None:
    """Send; where the peer has closed already, raise the PeerError of the alert that it left, if it did."""
    try:
        await loop.sock_sendall(sock, outgoing)
    except (BrokenPipeError, ConnectionResetError):
        with contextlib.suppress(OSError):  # what the kernel says about the reading end is the same once more
            if last_words := sock.recv(_READ_SIZE):
                connection.receive_data(last_words)
        raise


async def _part(loop: asyncio.AbstractEventLoop, sock: socket.socket, alert: bytes) -> None:
    """Send the alert, and stay until the peer has closed or LINGER is over."""
    if not alert:
        return
    with contextlib.suppress(OSError):  # a peer that is gone already is refused all the same; TimeoutError is one too
        async with asyncio.timeout(LINGER):
            await loop.sock_sendall(sock, alert)
            sock.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(sock, _READ_SIZE):
                pass
