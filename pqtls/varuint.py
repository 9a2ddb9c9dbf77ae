"""varuint: the length in front of a large record (draft-ietf-tls-super-jumbo-record-limit-03 §3, RFC 9420 §2.1.2).

The two most significant bits of the first byte say whether the integer takes one, two or four bytes; the rest is the
value. Nobody may write a value in more bytes than it needs, so that each has one form on the wire.
"""

from __future__ import annotations

from typing import Final

from pqtls.errors import Alert, ProtocolViolation

_ONE_BYTE: Final = 2**6
_TWO_BYTES: Final = 2**14
MAX_VARUINT: Final = 2**30 - 1
_LARGEST_PREFIX: Final = 0b10


def write_varuint(value: int) -> bytes:
    """Write `value`, 0 to 2^30 - 1, in as few bytes as it takes."""
    if value < _ONE_BYTE:
        return value.to_bytes(1, "big")
    if value < _TWO_BYTES:
        return (0x4000 | value).to_bytes(2, "big")
    return (0x8000_0000 | value).to_bytes(4, "big")


def read_varuint(data: memoryview, at: int) -> tuple[int, int]:
    """Read the integer that begins at `data[at]`, which exists: its size in bytes, and its value.

    (0, 0) where its end has not come yet. Raises ProtocolViolation with record_overflow for the prefix 11 and for a
    value in more bytes than it needs: the draft has both treated as a record beyond the limit.
    """
    prefix = data[at] >> 6
    if prefix > _LARGEST_PREFIX:
        raise ProtocolViolation("a record's length begins with the bits 11", Alert.RECORD_OVERFLOW)
    size = 1 << prefix
    if at + size > len(data):
        return 0, 0
    if size == 2:  # as nearly always
        value = (data[at] & 0x3F) << 8 | data[at + 1]
        if value >= _ONE_BYTE:
            return 2, value
    else:
        value = int.from_bytes(data[at : at + size], "big") & ~(prefix << (8 * size - 2))
    if prefix and value < (_ONE_BYTE if size == 2 else _TWO_BYTES):
        raise ProtocolViolation(f"a record's length of {value} is written in {size} bytes", Alert.RECORD_OVERFLOW)
    return size, value
