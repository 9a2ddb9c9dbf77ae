"""TLS's presentation language (RFC 8446 §3): integers and length-prefixed vectors, read and written.

A Reader never reads past its end and never leaves bytes unread without saying so: both are a DecodeError.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from pqtls.errors import DecodeError

# A type and the length of what follows it, as in front of each extension (RFC 8446 §4.2).
_TAG: Final = struct.Struct("!HH")


class Reader:
    """A cursor over one message. `what` names the structure in errors."""

    __slots__ = ("_data", "_position", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._position = 0
        self._what = what

    @property
    def remaining(self) -> int:
        """Bytes that have not been read yet."""
        return len(self._data) - self._position

    # A handshake reads some hundred fields, so each of these three finds its bytes by itself rather than by the others.

    def take(self, length: int) -> bytes:
        """Read exactly `length` bytes."""
        start = self._position
        end = start + length
        if end > len(self._data):
            self._cut_short(start, length)
        self._position = end
        return self._data[start:end]

    def uint(self, size: int) -> int:
        """Read an unsigned integer of `size` bytes in network order."""
        start = self._position
        end = start + size
        if end > len(self._data):
            self._cut_short(start, size)
        self._position = end
        return int.from_bytes(self._data[start:end], "big")

    def vector(self, length_size: int, minimum: int = 0, maximum: int | None = None) -> bytes:
        """Read `opaque field<minimum..maximum>` whose length field has `length_size` bytes."""
        data = self._data
        start = self._position + length_size
        if start > len(data):
            self._cut_short(self._position, length_size)
        length = int.from_bytes(data[self._position : start], "big")
        if length < minimum or (maximum is not None and length > maximum):
            raise DecodeError(f"a vector in {self._what} has {length} bytes, which is out of its range")
        end = start + length
        if end > len(data):
            self._cut_short(start, length)
        self._position = end
        return data[start:end]

    def tagged_vectors(self) -> list[tuple[int, bytes]]:
        """Read all that is left as pairs of a uint16 and an `opaque content<0..2^16-1>`."""
        data = self._data
        size = len(data)
        position = self._position
        found: list[tuple[int, bytes]] = []
        while position < size:
            start = position + _TAG.size
            if start > size:
                self._cut_short(position, _TAG.size)
            tag, length = _TAG.unpack_from(data, position)
            position = start + length
            if position > size:
                self._cut_short(start, length)
            found.append((tag, data[start:position]))
        self._position = size
        return found

    def nested(self, length_size: int, minimum: int = 0, maximum: int | None = None) -> Reader:
        """Read a vector and return a reader over its content."""
        return Reader(self.vector(length_size, minimum, maximum), self._what)

    def finish(self) -> None:
        """Demand that everything was read."""
        if self._position != len(self._data):
            raise DecodeError(f"{self._what} has {self.remaining} bytes too many")

    def _cut_short(self, position: int, wanted: int) -> NoReturn:
        left = len(self._data) - position
        raise DecodeError(f"{self._what} is cut short: {wanted} bytes wanted, {left} left")


def vector(length_size: int, content: bytes) -> bytes:
    """Write `opaque field<..>`: the length in `length_size` bytes, then the content."""
    return len(content).to_bytes(length_size, "big") + content


def uint16(value: int) -> bytes:
    """Write a uint16 in network order."""
    return value.to_bytes(2, "big")


def tagged_vector(tag: int, content: bytes) -> bytes:
    """Write a uint16 and an `opaque content<0..2^16-1>`."""
    return _TAG.pack(tag, len(content)) + content


def uint16_list(values: tuple[int, ...]) -> bytes:
    """Write `uint16 values<2..2^16-2>`."""
    return struct.pack(f"!H{len(values)}H", 2 * len(values), *values)


def read_uint16_list(reader: Reader, length_size: int = 2) -> tuple[int, ...]:
    """Read `uint16 values<2..>`, a list of at least one."""
    content = reader.vector(length_size, minimum=2)
    if len(content) % 2:
        raise DecodeError("a list of 16-bit code points has an odd number of bytes")
    return struct.unpack(f"!{len(content) // 2}H", content)
