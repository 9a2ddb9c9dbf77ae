"""What a connection's states cause, collected into its buffers: bytes to send, keys, events."""

from __future__ import annotations

from typing import Final

from pqtls.errors import Alert, ProtocolViolation
from pqtls.events import Event
from pqtls.framing import HandshakeJoiner
from pqtls.key_schedule import TrafficSecret
from pqtls.record import LARGE_FRAGMENT, MAX_FRAGMENT, ContentType, RecordOpener, RecordSealer

# RFC 8446 §5.1: 0x0303; a first ClientHello may say 0x0301 instead, and receivers ignore it.
_PLAIN_HEADER: Final = b"\x03\x03"


class ConnectionEffects:
    """The one implementation of states.Effects."""

    __slots__ = (
        "_fragment_size", "_large", "_max_inner", "events", "joiner", "opener", "output", "pending", "sealer",
    )  # fmt: skip

    def __init__(self) -> None:
        self._large: tuple[int, int] | None = (
            None  # content and inner plaintext at most, with all keys from the next on
        )
        self._max_inner = MAX_FRAGMENT + 1
        self._fragment_size = MAX_FRAGMENT
        self.events: list[Event] = []
        self.joiner = HandshakeJoiner()
        self.output = bytearray()
        self.pending: list[bytes] = []
        self.opener: RecordOpener | None = None
        self.sealer: RecordSealer | None = None

    def send(self, message: bytes) -> None:
        """Collect handshake messages: those of one epoch share records."""
        self.pending.append(message)

    def flush(self) -> None:
        """Put the collected messages into records under the present keys."""
        if not self.pending:
            return
        pending = b"".join(self.pending)
        self.pending.clear()
        # RFC 8449 limits protected records only; the hellos are far below either limit. Handshake messages have no use
        # for large records.
        size = MAX_FRAGMENT if self.sealer is None else min(self._fragment_size, MAX_FRAGMENT)
        if len(pending) <= size:
            self.put(ContentType.HANDSHAKE, pending)
            return
        for start in range(0, len(pending), size):
            self.put(ContentType.HANDSHAKE, pending[start : start + size])

    def put(self, content_type: ContentType, content: bytes) -> None:
        """Put one fragment into a record under the present keys."""
        if self.sealer is None:
            self.output += bytes((content_type,)) + _PLAIN_HEADER + len(content).to_bytes(2, "big") + content
        else:
            self.output += self.sealer.seal(content_type, content)

    def send_change_cipher_spec(self) -> None:
        """Behind what was collected so far, the record that middleboxes want to see (appendix D.4); never protected."""
        self.flush()
        self.output += bytes((ContentType.CHANGE_CIPHER_SPEC,)) + _PLAIN_HEADER + b"\x00\x01\x01"

    def write_with(self, secret: TrafficSecret) -> None:
        """Change the sending keys, behind everything collected so far."""
        self.flush()
        if self._large is not None:
            self._fragment_size = self._large[0]
        self.sealer = RecordSealer(secret, self._fragment_size, large=self._large is not None)

    def read_with(self, secret: TrafficSecret) -> None:
        """Change the receiving keys; a message half received under the old ones is an error (§5.1)."""
        if not self.joiner.is_empty:
            raise ProtocolViolation("more handshake data in the record that ended an epoch", Alert.UNEXPECTED_MESSAGE)
        if self._large is not None:
            self._max_inner = self._large[1]
        self.opener = RecordOpener(secret, self._max_inner, large=self._large is not None)

    def limit_records(self, theirs: int, ours: int) -> None:
        """Make protected records no larger than the peer takes them, and take none that are larger than we said."""
        self.flush()
        # The limits count the type byte. A client may state more than TLS 1.3 has (RFC 8449 §4).
        self._fragment_size = min(theirs - 1, MAX_FRAGMENT)
        self._max_inner = ours
        if self.opener is not None:
            self.opener.limit_inner(ours)
        if self.sealer is not None:
            self.sealer.limit_fragments(self._fragment_size)

    def enlarge_records(self, theirs: int, ours: int) -> None:
        """Change to large records with the next keys each way, no larger than the peer takes them, and than we said."""
        self._large = min(theirs - 1, LARGE_FRAGMENT), ours

    @property
    def fragment_size(self) -> int:
        """Bytes of content that a protected record of ours holds at most."""
        return self._fragment_size

    def emit(self, event: Event) -> None:
        """Tell the owner."""
        self.events.append(event)
