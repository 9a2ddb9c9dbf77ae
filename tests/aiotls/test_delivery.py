"""Plaintext as protocols take it."""

from __future__ import annotations

import asyncio

import pytest

from aiotls.delivery import deliver


class Plain(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, size: int) -> None:
        self.buffer, self.heard, self.hints = bytearray(size), b"", []  # type: ignore[var-annotated]

    def get_buffer(self, sizehint: int) -> bytearray:
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self.buffer[:nbytes]


def test_a_protocol_hears_it_all_at_once() -> None:
    protocol = Plain()
    deliver(protocol, b"abcdef")
    assert protocol.heard == [b"abcdef"]


@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_a_buffered_protocol_hears_it_in_pieces_of_its_buffer(size: int) -> None:
    protocol = Buffered(size)
    deliver(protocol, b"abcdef")
    assert protocol.heard == b"abcdef"
    assert protocol.hints == list(range(6, 0, -size))


def test_an_empty_buffer_is_the_protocols_mistake() -> None:
    with pytest.raises(RuntimeError, match="empty buffer"):
        deliver(Buffered(0), b"abc")
