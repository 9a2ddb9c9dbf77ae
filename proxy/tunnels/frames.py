"""The framing of ALPN `qbitel-mux/1` (ADR 18): frame headers, control payloads, and what breaks the protocol. Pure.

frame:  stream id (32 bits) | type (8 bits) | length (24 bits) | payload          all numbers big-endian
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from proxy.config import Endpoint

HEADER: Final = struct.Struct(">II")  # stream id; type and length
HEADER_SIZE: Final = HEADER.size
# Four full reads of a TLS record; a frame this long delays the others of its tunnel by 20 µs of work.
MAX_DATA: Final = 65_535
# What may be under way to an application that does not read: what a socket buffer of Linux holds by default, and
# enough for 2 Gbit/s over a round trip of a millisecond. Faster bulk has a connection of its own.
CREDIT: Final = 256 * 1024
MAX_STREAM_ID: Final = 2**32 - 1
CONNECTION_ID_SIZE: Final = 16
_TYPE_SHIFT: Final = 24
LENGTH_MASK: Final = (1 << _TYPE_SHIFT) - 1


class FrameType(IntEnum):
    """What a frame is."""

    DATA = 0
    OPEN = 1
    OPENED = 2
    CREDIT = 3
    FIN = 4
    RESET = 5
    PING = 6
    PONG = 7
    DRAIN = 8
    MOVED = 9
    ADDRESS = 10


class ResetCode(IntEnum):
    """Why a stream is over. What the other side makes of it is in reasons.py."""

    RESET_BY_APPLICATION = 1
    CONNECT_FAILED = 2
    CONNECT_TIMEOUT = 3
    DENIED = 4
    CONNECTION_LIMIT = 5
    NO_DESTINATION = 6
    IDLE = 7
    DRAINED = 8
    REVOKED = 9
    INTERNAL_ERROR = 10
    RATE_LIMITED = 11
    MOVE_FAILED = 12


class TunnelViolation(Exception):
    """The other sidecar broke the framing: its tunnel ends, with every stream in it. The message says how."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What an OPEN says: where the application wanted to go, and the connection's id in both sidecars' logs."""

    destination: Endpoint
    connection_id: bytes


_FAMILY_V4: Final = 4
_FAMILY_V6: Final = 6
_OPEN_V4: Final = struct.Struct(f">BH4s{CONNECTION_ID_SIZE}s")
_OPEN_V6: Final = struct.Struct(f">BH16s{CONNECTION_ID_SIZE}s")
_ADDRESS_V4: Final = struct.Struct(">BH4s")
_ADDRESS_V6: Final = struct.Struct(">BH16s")
# Streams to the same few destinations follow one another, and ipaddress takes 1.5 µs for each.
_ADDRESSES_KEPT: Final = 256
_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_TYPES: Final = tuple(FrameType)  # by their numbers, which have no gap
# The lengths that a payload of each type may have; DATA is another matter.
_LENGTHS: Final[dict[int, frozenset[int]]] = {
    FrameType.OPEN: frozenset({_OPEN_V4.size, _OPEN_V6.size}),
    FrameType.OPENED: frozenset({0}),
    FrameType.CREDIT: frozenset({4}),
    FrameType.FIN: frozenset({0}),
    FrameType.RESET: frozenset({2}),
    FrameType.PING: frozenset({8}),
    FrameType.PONG: frozenset({8}),
    FrameType.DRAIN: frozenset({0}),
    FrameType.MOVED: frozenset({0}),
    FrameType.ADDRESS: frozenset({_ADDRESS_V4.size, _ADDRESS_V6.size}),
}
# The longest payload that is not DATA: what may have to wait for its end.
MAX_CONTROL: Final = max(max(lengths) for lengths in _LENGTHS.values())
_OF_THE_TUNNEL: Final = frozenset({FrameType.PING, FrameType.PONG, FrameType.DRAIN, FrameType.ADDRESS})


def word_of(frame_type: int, length: int) -> int:
    """The second word of a header."""
    return frame_type << _TYPE_SHIFT | length


_FIN_WORD: Final = word_of(FrameType.FIN, 0)
_OPENED_WORD: Final = word_of(FrameType.OPENED, 0)


def frame(stream: int, frame_type: FrameType, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return HEADER.pack(stream, word_of(frame_type, len(payload))) + payload


def fin_frame(stream: int) -> bytes:
    """FIN."""
    return HEADER.pack(stream, _FIN_WORD)


def opened_frame(stream: int) -> bytes:
    """OPENED."""
    return HEADER.pack(stream, _OPENED_WORD)


def control_type(stream: int, word: int) -> FrameType:
    """The type of a header that is not DATA's, or TunnelViolation where no such frame exists."""
    code, length = word >> _TYPE_SHIFT, word & LENGTH_MASK
    if length not in _LENGTHS.get(code, ()):
        raise TunnelViolation(f"a frame of type {code} with {length} bytes does not exist in qbitel-mux/1")
    found = _TYPES[code]
    if (stream == 0) != (found in _OF_THE_TUNNEL):
        raise TunnelViolation(f"a frame {found.name} for stream {stream}")
    return found


def open_frame(stream: int, opening: Opening) -> bytes:
    """OPEN for an address (not a name)."""
    packed = _packed(opening.destination.host)
    layout, family = (_OPEN_V4, _FAMILY_V4) if len(packed) == 4 else (_OPEN_V6, _FAMILY_V6)
    payload = layout.pack(family, opening.destination.port, packed, opening.connection_id)
    return frame(stream, FrameType.OPEN, payload)


def read_open(payload: bytes) -> Opening:
    """Read the payload of an OPEN, whose length is one that OPEN has. Raises TunnelViolation."""
    layout, family = (_OPEN_V4, _FAMILY_V4) if len(payload) == _OPEN_V4.size else (_OPEN_V6, _FAMILY_V6)
    found, port, packed, connection_id = layout.unpack(payload)
    if found != family:
        raise TunnelViolation(f"an OPEN of family {found} with {len(payload)} bytes")
    return Opening(_endpoint(packed, port), connection_id)


@functools.lru_cache(maxsize=_ADDRESSES_KEPT)
def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host.partition("%")[0]).packed


@functools.lru_cache(maxsize=_ADDRESSES_KEPT)
def _endpoint(packed: bytes, port: int) -> Endpoint:
    return Endpoint(str(ipaddress.ip_address(packed)), port)


def credit_frame(stream: int, count: int) -> bytes:
    """CREDIT for `count` more bytes."""
    return frame(stream, FrameType.CREDIT, _U32.pack(count))


def read_credit(payload: bytes) -> int:
    """How many more bytes may be sent."""
    (count,) = _U32.unpack(payload)
    return int(count)


def reset_frame(stream: int, code: ResetCode) -> bytes:
    """RESET for the reason `code`."""
    return frame(stream, FrameType.RESET, _U16.pack(code))


def read_reset(payload: bytes) -> ResetCode:
    """Why; a number that we do not know, of a later version, is an internal error of the other side."""
    (number,) = _U16.unpack(payload)
    try:
        return ResetCode(number)
    except ValueError:
        return ResetCode.INTERNAL_ERROR


def address_frame(address: Endpoint) -> bytes:
    """ADDRESS: where this very server can be dialled, whatever the tunnel was dialled to."""
    packed = ipaddress.ip_address(address.host.partition("%")[0])
    layout, family = (_ADDRESS_V4, _FAMILY_V4) if packed.version == 4 else (_ADDRESS_V6, _FAMILY_V6)
    return frame(0, FrameType.ADDRESS, layout.pack(family, address.port, packed.packed))


def read_address(payload: bytes) -> Endpoint:
    """Read the payload of an ADDRESS, whose length is one that ADDRESS has. Raises TunnelViolation."""
    layout, family = (_ADDRESS_V4, _FAMILY_V4) if len(payload) == _ADDRESS_V4.size else (_ADDRESS_V6, _FAMILY_V6)
    found, port, packed = layout.unpack(payload)
    if found != family:
        raise TunnelViolation(f"an ADDRESS of family {found} with {len(payload)} bytes")
    return Endpoint(str(ipaddress.ip_address(packed)), port)
