"""How a connection can end badly, as asyncio's programs expect it: subclasses of ConnectionError.

What the kernel says (ECONNRESET, EPIPE, EHOSTUNREACH) stays the OSError that it is.
"""

from __future__ import annotations

from pqtls import PeerError, TruncatedStream


class TlsConnectionError(ConnectionError):
    """A TLS connection ended other than in order. `reason` is a slug of a closed set, fit for a metric's label."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.strerror = message  # what those who format any OSError show


class PeerFailed(TlsConnectionError):
    """The peer is at fault, or refused us: `peer_error` says in which way, and which alert went or came."""

    def __init__(self, peer_error: PeerError) -> None:
        super().__init__(str(peer_error), peer_error.reason)
        self.peer_error = peer_error


class StreamTruncated(PeerFailed, ConnectionResetError):
    """The peer's stream ended without close_notify: what came may not be all that was sent (RFC 8446 §6.1)."""


class HandshakeTimeout(TlsConnectionError):
    """The handshake did not complete in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the TLS handshake did not complete within {seconds:g} s; the peer is silent, very slow or not a TLS peer",
            "handshake_timeout",
        )


class HandshakeEvicted(TlsConnectionError):
    """A server gave up this handshake, its oldest one, for a newer: too many were under way."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"more than {limit} TLS handshakes were under way at once, and this was the oldest", "handshake_evicted"
        )


class ShutdownTimeout(TlsConnectionError):
    """The peer took nothing for so long after close() that what was still to be sent was thrown away."""

    def __init__(self, unsent: int, seconds: float) -> None:
        super().__init__(
            f"the peer took no byte for {seconds:g} s while the connection was being closed; "
            f"{unsent} bytes were not sent",
            "shutdown_timeout",
        )


def of_peer_error(error: PeerError) -> PeerFailed:
    """`error` as an exception that asyncio's programs know how to handle."""
    return StreamTruncated(error) if isinstance(error, TruncatedStream) else PeerFailed(error)
