"""What a handshake state is: a frozen value whose one method takes a message and returns the next state.

A state does nothing to the world: what must happen (a message to send, new keys, an event) it says to `Effects`, in
the order in which it must happen.
"""

from __future__ import annotations

from typing import Protocol

from pqtls.errors import Alert, ProtocolViolation
from pqtls.events import Event
from pqtls.framing import HandshakeMessage, HandshakeType
from pqtls.key_schedule import TrafficSecret


class Effects(Protocol):
    """What a state may cause."""

    def send(self, message: bytes) -> None:
        """Send one whole handshake message under the present sending keys."""
        ...

    def send_change_cipher_spec(self) -> None:
        """Send a dummy change_cipher_spec, for middleboxes (RFC 8446 appendix D.4)."""
        ...

    def write_with(self, secret: TrafficSecret) -> None:
        """Protect everything sent from here on with `secret`."""
        ...

    def read_with(self, secret: TrafficSecret) -> None:
        """Open everything received from here on with `secret`. The message before must have ended its record."""
        ...

    def limit_records(self, theirs: int, ours: int) -> None:
        """Keep to record_size_limit (RFC 8449) from here on: what the peer takes, and what we take.

        Both are in bytes of inner plaintext. It binds the two ends only where both have stated a limit.
        """
        ...

    def enlarge_records(self, theirs: int, ours: int) -> None:
        """Protect with TLSLargeCiphertext from the next keys on, in either direction: those of application data.

        The limits are as those of limit_records (draft-ietf-tls-super-jumbo-record-limit-03).
        """
        ...

    def emit(self, event: Event) -> None:
        """Tell the owner."""
        ...


class State(Protocol):
    """One step of a handshake, or the traffic after it."""

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Take the next message; return the next state, or raise PeerError."""
        ...


def expect(message: HandshakeMessage, wanted: HandshakeType) -> bytes:
    """Return the body of a message of the type `wanted`; anything else is an unexpected_message (RFC 8446 §4)."""
    if message.type != wanted:
        raise ProtocolViolation(
            f"{message.name} came where {wanted.name.lower()} was expected", Alert.UNEXPECTED_MESSAGE
        )
    return message.body
