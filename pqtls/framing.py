"""Framing: from the byte stream to whole handshake messages, whatever the cuts (RFC 8446 §5.1).

Records may carry several messages, and a message may span records; it may not be interleaved with other types, and may
not span a change of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from pqtls.errors import Alert, DecodeError, NotTls, ProtocolViolation
from pqtls.record import HEADER_SIZE, MAX_FRAGMENT, ContentType

_MESSAGE_HEADER: Final = 4


class HandshakeType(IntEnum):
    """HandshakeType of RFC 8446 §4."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15
    FINISHED = 20
    KEY_UPDATE = 24


# What a stranger can make us buffer. A ClientHello with one share of each group here is below 6 KiB; a chain of seven
# ML-DSA-87 certificates is below 64 KiB, and so are a foreign server's tickets; nothing else needs more than an
# ML-DSA-87 signature of 4,627 bytes.
_LIMITS: Final[dict[int, int]] = {
    HandshakeType.CLIENT_HELLO: 2**15,
    HandshakeType.CERTIFICATE: 2**16,
    HandshakeType.NEW_SESSION_TICKET: 2**16,
}
_DEFAULT_LIMIT: Final = 2**14


class HandshakeMessage(NamedTuple):
    """One whole message: its type, its body, and all of it as the transcript takes it."""

    type: int
    body: bytes
    raw: bytes

    @property
    def name(self) -> str:
        """The type's name, for errors."""
        try:
            return HandshakeType(self.type).name.lower()
        except ValueError:
            return f"handshake message of type {self.type}"


def write_message(message_type: HandshakeType, body: bytes) -> bytes:
    """Put the four-byte header in front of `body`."""
    return bytes((message_type,)) + len(body).to_bytes(3, "big") + body


class HandshakeJoiner:
    """Collects handshake fragments and gives out whole messages. Bounded by the limit of each message's type."""

    __slots__ = ("_buffer", "_start")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._start = 0  # of the next message

    @property
    def is_empty(self) -> bool:
        """Whether no message is half received."""
        return self._start == len(self._buffer)

    def feed(self, fragment: bytes) -> None:
        """Add a record's content. Empty handshake fragments are forbidden (§5.1)."""
        if not fragment:
            raise ProtocolViolation("an empty handshake record", Alert.UNEXPECTED_MESSAGE)
        if not self._buffer:
            self._buffer = fragment
        elif isinstance(self._buffer, bytearray):
            self._buffer += fragment
        else:
            # A message in many pieces: a bytearray grows without being copied for each.
            self._buffer = bytearray(self._buffer + fragment)

    def next_message(self) -> HandshakeMessage | None:
        """The next whole message, or None until more has come."""
        buffer, start = self._buffer, self._start
        body = start + _MESSAGE_HEADER
        if len(buffer) < body:
            self._drop_taken()
            return None
        length = int.from_bytes(buffer[start + 1 : body], "big")
        if length > _LIMITS.get(buffer[start], _DEFAULT_LIMIT):
            raise DecodeError(f"a handshake message of type {buffer[start]} with {length} bytes is longer than we take")
        end = body + length
        if len(buffer) < end:
            self._drop_taken()
            return None
        self._start = end
        raw = bytes(buffer[start:end])
        return HandshakeMessage(raw[0], raw[_MESSAGE_HEADER:], raw)

    def _drop_taken(self) -> None:
        """Keep only what belongs to the next message."""
        if self._start:
            self._buffer = self._buffer[self._start :]
            self._start = 0


# What may come without protection; a server that refuses a ClientHello begins with an alert.
_PLAIN_TYPES: Final = (ContentType.CHANGE_CIPHER_SPEC, ContentType.ALERT, ContentType.HANDSHAKE)


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """A record that is not protected: `size` is what it takes of the stream."""

    type: int
    content: bytes
    size: int


def read_plain_record(buffer: bytes | bytearray, first: bool) -> PlainRecord | None:
    """The unprotected record at the start of `buffer`, or None while it is incomplete.

    `first` says that nothing has come yet: then bytes that are no TLS at all are called so.
    """
    if first and buffer and (buffer[0] not in _PLAIN_TYPES or (len(buffer) > 1 and buffer[1] != 3)):
        raise NotTls(f"the peer does not speak TLS: its first bytes are {bytes(buffer[:16])!r}")
    if len(buffer) < HEADER_SIZE:
        return None
    # legacy_record_version is ignored "for all purposes" (§5.1).
    content_type = buffer[0]
    length = int.from_bytes(buffer[3:HEADER_SIZE], "big")
    if content_type not in _PLAIN_TYPES:
        raise ProtocolViolation(
            f"an unprotected record of type {content_type} during the handshake", Alert.UNEXPECTED_MESSAGE
        )
    if length > MAX_FRAGMENT:
        raise ProtocolViolation(f"a plaintext record of {length} bytes exceeds 2^14", Alert.RECORD_OVERFLOW)
    end = HEADER_SIZE + length
    if len(buffer) < end:
        return None
    return PlainRecord(content_type, bytes(buffer[HEADER_SIZE:end]), end)
