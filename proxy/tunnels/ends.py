"""How a stream ends or goes on elsewhere: what it tells its owner, the other side, and the relay that takes over."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pqtls import Session
from proxy.engine import Engine, Scratch
from proxy.relay import End, Outcome, Relay
from proxy.tunnels.frames import ResetCode

if TYPE_CHECKING:
    from proxy.tunnels.stream import Stream


class StreamOwner(Protocol):
    """Whose connection a stream carries."""

    def on_connected(self) -> None:
        """The application on the other side is there."""

    def on_bulk(self, stream: Stream) -> None:
        """It carries so much that a connection of its own would be better; said once."""

    def on_moved(self, relay: Relay) -> None:
        """`relay`, not yet started, goes on from here: the stream is no more."""

    def on_end(self, outcome: Outcome) -> None:
        """It is over. Called once, unless it has moved: then the relay's end says so."""


@dataclass(frozen=True, slots=True)
class NextConnection:
    """A TLS connection, its handshake done, that a stream moves to."""

    wire: socket.socket
    engine: Engine
    scratch: Scratch
    on_session: Callable[[Session], None]


class StreamReset(Exception):
    """The other side ended the stream; `code` says why."""

    def __init__(self, code: ResetCode) -> None:
        super().__init__(code.name.lower())
        self.code = code


# Our reason, and what the other side is told of it.
_CODES: Final = {
    End.CONNECT_TIMEOUT: ResetCode.CONNECT_TIMEOUT,
    End.IDLE: ResetCode.IDLE,
    End.STALLED: ResetCode.IDLE,
    End.DRAINED: ResetCode.DRAINED,
    End.REVOKED: ResetCode.REVOKED,
    End.DENIED: ResetCode.DENIED,
}


def code_of(end: End) -> ResetCode:
    """What the other side is told where we end a stream."""
    return _CODES.get(end, ResetCode.INTERNAL_ERROR)


def end_of(code: ResetCode) -> End:
    """What the other side's reason is for us: an ordinary reset of its application, or its refusal."""
    if code in (ResetCode.RESET_BY_APPLICATION, ResetCode.INTERNAL_ERROR):
        return End.RESET_BY_PEER
    return End.REFUSED
