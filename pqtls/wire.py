"""TLS's presentation language (RFC 8446 §3): integers and length-prefixed vectors, read and written.

A Reader never reads past its end and never leaves bytes unread without saying so: both are a DecodeError.
"""

from __future__ import annotations

from pqtls.errors import DecodeError


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

    def take(self, length: int) -> bytes:
        """Read exactly `length` bytes."""
        end = self._position + length
        if end > len(self._data):
            raise DecodeError(f"{self._what} is cut short: {length} bytes wanted, {self.remaining} left")
        chunk = self._data[self._position : end]
        self._position = end
        return chunk

    def uint(self, size: int) -> int:
        """Read an unsigned integer of `size` bytes in network order."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int, minimum: int = 0, maximum: int | None = None) -> bytes:
        """Read `opaque field<minimum..maximum>` whose length field has `length_size` bytes."""
        length = self.uint(length_size)
        if length < minimum or (maximum is not None and length > maximum):
            raise DecodeError(f"a vector in {self._what} has {length} bytes, which is out of its range")
        return self.take(length)

    def nested(self, length_size: int, minimum: int = 0, maximum: int | None = None) -> Reader:
        """Read a vector and return a reader over its content."""
        return Reader(self.vector(length_size, minimum, maximum), self._what)

    def finish(self) -> None:
        """Demand that everything was read."""
        if self.remaining:
            raise DecodeError(f"{self._what} has {self.remaining} bytes too many")


def vector(length_size: int, content: bytes) -> bytes:
    """Write `opaque field<..>`: the length in `length_size` bytes, then the content."""
    return len(content).to_bytes(length_size, "big") + content


def uint16(value: int) -> bytes:
    """Write a uint16 in network order."""
    return value.to_bytes(2, "big")


def uint16_list(values: tuple[int, ...]) -> bytes:
    """Write `uint16 values<2..2^16-2>`."""
    return vector(2, b"".join(map(uint16, values)))


def read_uint16_list(reader: Reader, length_size: int = 2) -> tuple[int, ...]:
    """Read `uint16 values<2..>`, a list of at least one."""
    content = reader.nested(length_size, minimum=2)
    if content.remaining % 2:
        raise DecodeError("a list of 16-bit code points has an odd number of bytes")
    return tuple(content.uint(2) for _ in range(content.remaining // 2))
