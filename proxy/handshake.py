"""Drives a TLS connection through its handshake over a non-blocking socket, within a deadline.

Whatever ends it, the peer hears the alert that the engine names, and the caller gets an exception that says whose fault
it was.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from pqtls import Session
from pqtls.errors import PeerError
from pqtls.events import ApplicationData, Event, HandshakeCompleted, SessionReceived
from proxy.waits import Waits

# A flight of the mesh has some 14 KB (a leaf with ML-DSA-87 and the signature over the handshake).
_READ_SIZE: Final = 16 * 1024


class HandshakingConnection(Protocol):
    """What is needed of a pqtls connection, client or server, until its handshake is complete."""

    def receive_data(self, data: bytes) -> None: ...

    def data_to_send(self) -> bytes: ...

    def events(self) -> list[Event]: ...

    def export_keying_material(self, label: str, context: bytes, length: int) -> bytes: ...


# RFC 8446 §7.5: both ends compute the same, and nobody between them can; it tells nothing of the keys.
_ID_LABEL: Final = "EXPORTER-qbitel-connection-id"
_ID_SIZE: Final = 16


def connection_id(connection: HandshakingConnection) -> bytes:
    """16 bytes that both ends know their connection by, once its handshake is complete: for their logs."""
    return connection.export_keying_material(_ID_LABEL, b"", _ID_SIZE)


class HandshakeFailed(Exception):
    """The handshake did not complete for a reason outside TLS: time ran out or the connection broke.

    `reason` is a slug for metrics; the message is a sentence.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """What was negotiated, how many seconds it took, and what came along with the peer's last flight:
    plaintext, and sessions to resume.
    """

    event: HandshakeCompleted
    seconds: float
    first_plaintext: bytes
    sessions: tuple[Session, ...] = ()


@dataclass(frozen=True, slots=True)
class _Completion:
    """The end of a handshake, and the events that the same bytes caused behind it."""

    completed: HandshakeCompleted
    behind: list[Event]


async def handshake(
    waits: Waits,
    sock: socket.socket,
    connection: HandshakingConnection,
    *,
    timeout: float,
    first: bytes = b"",
    our_turn: Callable[[], Awaitable[object]] | None = None,
    hold_last: bool = False,
) -> HandshakeResult:
    """Complete the handshake of `connection` over `sock`; `first` are bytes of the peer that were read before.

    `our_turn()` is waited for before each step that may cost milliseconds of CPU, within the time-out. Where
    `hold_last`, what completes it on our side stays in the connection, for the caller to send it at once with what
    comes behind it: two packets less, and two wake-ups.

    Raises PeerError where the peer is at fault, after its alert has been sent, and HandshakeFailed for time (`timeout`
    in seconds) and broken connections. The socket stays open in each case.
    """
    started = time.perf_counter()
    try:
        with waits.at_most(timeout):
            events = await _exchange(waits, sock, connection, first, our_turn, hold_last=hold_last)
    except TimeoutError:
        raise HandshakeFailed(
            f"the TLS handshake did not complete within {timeout:g} s; the peer is silent, very slow or not a TLS peer",
            "handshake_timeout",
        ) from None
    except OSError as error:
        raise HandshakeFailed(
            f"the connection broke during the TLS handshake ({error.strerror or error}); "
            "the peer went away, or something between cut it",
            "handshake_reset",
        ) from error
    seconds = time.perf_counter() - started
    # A client may send its first data right behind its Finished, and they may come in one read.
    plaintext = b"".join(event.data for event in events.behind if isinstance(event, ApplicationData))
    sessions = tuple(event.session for event in events.behind if isinstance(event, SessionReceived))
    return HandshakeResult(events.completed, seconds, plaintext, sessions)


async def _exchange(
    waits: Waits,
    sock: socket.socket,
    connection: HandshakingConnection,
    data: bytes,
    our_turn: Callable[[], Awaitable[object]] | None,
    *,
    hold_last: bool,
) -> _Completion:
    try:
        if data:
            if our_turn is not None:
                await our_turn()
            connection.receive_data(data)
        while True:
            events = connection.events()
            completed = events[0] if events else None
            is_complete = isinstance(completed, HandshakeCompleted)
            if not (is_complete and hold_last) and (outgoing := connection.data_to_send()):
                await waits.send_all(sock, outgoing)
            if isinstance(completed, HandshakeCompleted):
                return _Completion(completed, events[1:])
            data = await waits.receive(sock, _READ_SIZE)
            if not data:
                raise HandshakeFailed(
                    "the peer closed the connection in the middle of the TLS handshake", "handshake_reset"
                )
            if our_turn is not None:
                await our_turn()
            connection.receive_data(data)
    except PeerError:
        if alert := connection.data_to_send():
            with contextlib.suppress(OSError):  # a peer that is gone already is refused all the same
                await waits.send_all(sock, alert)
        raise
