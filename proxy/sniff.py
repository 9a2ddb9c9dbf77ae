"""Tells what a client speaks from its first bytes: our TLS, somebody else's TLS, or no TLS at all.

Pure, bounded and total: any bytes give a verdict, none an exception. It reads just enough of a ClientHello (RFC 8446
§4.1.2) to see the ALPN list (RFC 7301 §3.1); whether the hello is a good one is the TLS engine's business.
A post-quantum ClientHello is larger than one TCP segment and may span several records, so that "not yet enough" is the
usual first answer.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Final

# A ClientHello with two hybrid key shares of security level 5 has some 5 KB. Past this bound we stop looking: it is
# TLS, but no client of ours, whose offers are known.
MAX_HELLO: Final = 16 * 1024
# RFC 8446 §5.1 lets a hello be cut into records as small as one byte. Real stacks use one or two; the bound keeps the
# work for each new segment small.
MAX_RECORDS: Final = 64

_HANDSHAKE: Final = 22  # ContentType, RFC 8446 §5.1
_CLIENT_HELLO: Final = 1  # HandshakeType, RFC 8446 §4
_ALPN: Final = 16  # ExtensionType, RFC 7301 §3.1
_MAX_FRAGMENT: Final = 1 << 14  # RFC 8446 §5.1
_EXTENSION_HEADER: Final = struct.Struct("!HH")  # type and length, RFC 8446 §4.2


class Verdict(Enum):
    """What the bytes so far say."""

    NEED_MORE = "need more"
    OUR_TLS = "a ClientHello that offers our ALPN protocol"
    OTHER_TLS = "a ClientHello without our ALPN protocol"
    NOT_TLS = "not TLS"


def sniff(data: bytes, ours: frozenset[bytes]) -> Verdict:
    """Return what the client speaks, given all `data` that it has sent so far; `ours` are our ALPN protocol names."""
    hello = bytearray()
    position = 0
    for _ in range(MAX_RECORDS):
        header = data[position : position + 5]
        if not _may_be_record_header(header):
            return Verdict.NOT_TLS if position == 0 else Verdict.OTHER_TLS
        if len(header) < 5:
            return Verdict.NEED_MORE
        length = int.from_bytes(header[3:5], "big")
        fragment = data[position + 5 : position + 5 + length]
        hello += fragment
        if hello and hello[0] != _CLIENT_HELLO:
            return Verdict.OTHER_TLS if position else Verdict.NOT_TLS
        if len(hello) >= 4:
            size = int.from_bytes(hello[1:4], "big")
            if size > MAX_HELLO:
                return Verdict.OTHER_TLS
            if len(hello) >= 4 + size:
                spoken = _alpn_protocols(bytes(hello[4 : 4 + size]))
                return Verdict.OTHER_TLS if ours.isdisjoint(spoken) else Verdict.OUR_TLS
        if len(fragment) < length:
            return Verdict.NEED_MORE
        position += 5 + length
    return Verdict.OTHER_TLS


def _may_be_record_header(header: bytes) -> bool:
    """Whether the first up to five bytes of a record can be those of a handshake record, as far as they are there."""
    if header[:1] not in (b"", bytes([_HANDSHAKE])) or header[1:2] not in (b"", b"\x03"):
        return False
    # legacy_record_version is to be ignored (RFC 8446 §5.1), but no version of TLS ever wrote a minor above 4.
    if len(header) >= 3 and header[2] > 4:
        return False
    return len(header) < 5 or 1 <= int.from_bytes(header[3:5], "big") <= _MAX_FRAGMENT


def _alpn_protocols(body: bytes) -> tuple[bytes, ...]:
    """The protocol names in the ALPN extension of a ClientHello's body; none where it has none or is malformed."""
    position = 2 + 32  # legacy_version, random
    position += 1 + _number(body, position, 1)  # legacy_session_id
    position += 2 + _number(body, position, 2)  # cipher_suites
    position += 1 + _number(body, position, 1)  # legacy_compression_methods
    end = min(len(body), position + 2 + _number(body, position, 2))
    position += 2
    while position + 4 <= end:
        kind, length = _EXTENSION_HEADER.unpack_from(body, position)
        if kind == _ALPN:
            return _names(body[position + 4 : min(end, position + 4 + length)])
        position += 4 + length
    return ()


def _names(extension: bytes) -> tuple[bytes, ...]:
    names = []
    position = 2  # the list's own length
    while position < len(extension):
        length = extension[position]
        names.append(extension[position + 1 : position + 1 + length])
        position += 1 + length
    return tuple(names)


def _number(body: bytes, position: int, size: int) -> int:
    """The big-endian number at `position`; what lies past the end counts as nothing."""
    return int.from_bytes(body[position : position + size], "big")
