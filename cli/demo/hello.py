"""What anybody on the wire can read of a TLS ClientHello: the application protocols and key-exchange groups offered.

Written apart from pqtls on purpose: the demo is a witness, and a witness does not ask the accused to read for him.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

HANDSHAKE_RECORD: Final = 22  # RFC 8446 §5.1
CLIENT_HELLO: Final = 1  # RFC 8446 §4
RECORD_HEADER: Final = 5
EXTENSION_ALPN: Final = 16  # RFC 7301 §3.1
EXTENSION_KEY_SHARE: Final = 51  # RFC 8446 §4.2.8


class UnreadableError(ValueError):
    """The bytes are no whole ClientHello."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a ClientHello says in the clear."""

    alpn: tuple[bytes, ...]
    key_share_groups: tuple[int, ...]


def looks_like_tls(first_bytes: bytes) -> bool:
    """Whether a stream starts as a TLS handshake record: type 22, then version 3.x (RFC 8446 §5.1)."""
    return len(first_bytes) >= RECORD_HEADER and first_bytes[0] == HANDSHAKE_RECORD and first_bytes[1] == 3


def read_hello(stream: bytes) -> Hello:
    """Read the ClientHello at the start of `stream`, which may span several records, or raise UnreadableError."""
    try:
        return _parse(_handshake_bytes(stream))
    except (struct.error, IndexError) as error:
        raise UnreadableError(f"no whole ClientHello in {len(stream)} bytes") from error


def _handshake_bytes(stream: bytes) -> bytes:
    joined, at = b"", 0
    while at + RECORD_HEADER <= len(stream) and stream[at] == HANDSHAKE_RECORD:
        (length,) = struct.unpack_from(">H", stream, at + 3)
        joined += stream[at + RECORD_HEADER : at + RECORD_HEADER + length]
        at += RECORD_HEADER + length
    return joined


def _parse(message: bytes) -> Hello:
    if not message or message[0] != CLIENT_HELLO:
        raise UnreadableError("the stream does not start with a ClientHello")
    length = int.from_bytes(message[1:4], "big")
    if len(message) < 4 + length:
        raise UnreadableError(f"{len(message) - 4} of the ClientHello's {length} bytes were captured")
    at = 4 + 2 + 32  # header, legacy_version, random (RFC 8446 §4.1.2)
    at += 1 + message[at]  # legacy_session_id
    at += 2 + struct.unpack_from(">H", message, at)[0]  # cipher_suites
    at += 1 + message[at]  # legacy_compression_methods
    end = at + 2 + struct.unpack_from(">H", message, at)[0]
    at += 2
    alpn: list[bytes] = []
    groups: list[int] = []
    while at < end:
        kind, size = struct.unpack_from(">HH", message, at)
        body = message[at + 4 : at + 4 + size]
        if kind == EXTENSION_ALPN:
            alpn = _protocols(body)
        elif kind == EXTENSION_KEY_SHARE:
            groups = _groups(body)
        at += 4 + size
    return Hello(tuple(alpn), tuple(groups))


def _protocols(body: bytes) -> list[bytes]:
    names, at = [], 2
    while at < len(body):
        names.append(body[at + 1 : at + 1 + body[at]])
        at += 1 + body[at]
    return names


def _groups(body: bytes) -> list[int]:
    groups, at = [], 2
    while at < len(body):
        group, size = struct.unpack_from(">HH", body, at)
        groups.append(group)
        at += 4 + size
    return groups
