"""The transcript hash (RFC 8446 §4.4.1) as an immutable value: adding a message gives a new transcript."""

from __future__ import annotations

import hashlib
from typing import Any, Final

_MESSAGE_HASH: Final = 254  # HandshakeType message_hash


class Transcript:
    """The running hash of the handshake messages of one connection."""

    __slots__ = ("_hash",)

    def __init__(self, hash_name: str, *messages: bytes) -> None:
        self._hash: Any = hashlib.new(hash_name, b"".join(messages))

    def __add__(self, message: bytes) -> Transcript:
        """This transcript with one more message, its four-byte header included."""
        longer = Transcript.__new__(Transcript)
        longer._hash = self._hash.copy()
        longer._hash.update(message)
        return longer

    def digest(self) -> bytes:
        """Transcript-Hash over all messages so far."""
        value: bytes = self._hash.digest()
        return value

    @staticmethod
    def message_hash(hash_name: str, client_hello: bytes) -> bytes:
        """What stands for ClientHello1 when a HelloRetryRequest follows (§4.4.1)."""
        digest = hashlib.new(hash_name, client_hello).digest()
        return bytes((_MESSAGE_HASH, 0, 0, len(digest))) + digest
