"""What the relay needs of a TLS connection, and the buffers that it lends to all of them."""

from __future__ import annotations

from typing import Final, Protocol

from pqtls import Session
from pqtls.events import Event
from pqtls.record import MAX_RECORD

# One read takes at most so much: four full large records. Larger reads gain nothing measurable; each blocked direction
# of a connection holds at most this much.
READ_SIZE: Final = 256 * 1024
# From the wire: sixteen full records of RFC 8446, or four large ones and a little. What is left of the last record is
# in front of the next read, and counts; so a stream of full records leaves next to nothing to be moved there.
WIRE_READ_SIZE: Final = 16 * (5 + 2**14 + 1 + 16)
# A record gains 5 + 1 + 16 bytes (header, content type, tag: RFC 8446 §5.2), and a peer may ask for fragments as small
# as 63 bytes (RFC 8449 §4: 64 with the content type).
_RECORD_OVERHEAD: Final = 22
_SMALLEST_FRAGMENT: Final = 63
# What may go in front or in between: a KeyUpdate, an alert. Far less than this.
_CONTROL_RECORDS: Final = 1024


def ignore_session(_session: Session) -> None:
    """The default of `on_session`: nothing is resumed."""


class Engine(Protocol):
    """What the relay needs of an established pqtls connection, as ARCHITECTURE.md describes it."""

    @property
    def peer_closed(self) -> bool: ...

    @property
    def has_data_to_send(self) -> bool: ...

    def take_buffered(self) -> bytes: ...

    def data_to_send(self) -> bytes: ...

    def events(self) -> list[Event]: ...

    def open_into(self, ciphertext: memoryview, plaintext: memoryview) -> tuple[int, int]: ...

    def seal_into(self, plaintext: memoryview, length: int, records: memoryview) -> int: ...

    def send_close_notify(self) -> None: ...

    def receive_eof(self) -> None: ...


class Scratch:
    """The buffers of one process, shared by all its relays: each turn of a relay runs to its end before the next."""

    __slots__ = ("read", "write")

    def __init__(self) -> None:
        # Longer than either size by far more than the byte for the content type that seal_into puts behind the last
        # fragment: what came behind a handshake may be a record that is not whole and one read of that phase.
        self.read = memoryview(bytearray(MAX_RECORD + READ_SIZE + 1))
        records = -(-READ_SIZE // _SMALLEST_FRAGMENT)
        self.write = memoryview(bytearray(READ_SIZE + records * _RECORD_OVERHEAD + _CONTROL_RECORDS))
