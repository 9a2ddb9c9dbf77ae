"""The reader of captures finds what was said, whatever it is given."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.capture import hellos
from tests.cluster.pcap import End, segments, streams

CLIENT, SERVER = End("10.0.0.1", 40000), End("10.0.0.2", 8080)
_SYN, _ACK = 2, 16


def packet(source: End, destination: End, sequence: int, payload: bytes = b"", flags: int = _ACK) -> bytes:
    """IPv4 and TCP as they stand on a wire; nobody looks at checksums."""
    tcp = struct.pack(">HHIIBBHHH", source.port, destination.port, sequence, 0, 5 << 4, flags, 0, 0, 0) + payload
    addresses = b"".join(bytes(map(int, end.address.split("."))) for end in (source, destination))
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses + tcp


def capture(*packets: bytes, order: str = "<", link: int = 276) -> bytes:
    """A file of cooked packets."""
    cooked = [struct.pack(">H", 0x0800) + bytes(18) + one for one in packets]
    header = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    return header + b"".join(struct.pack(f"{order}IIII", 0, 0, len(one), len(one)) + one for one in cooked)


_WHOLE = capture(
    packet(CLIENT, SERVER, 2**32 - 1, flags=_SYN),
    packet(CLIENT, SERVER, 5, b"world"),
    packet(CLIENT, SERVER, 0, b"hello"),
    packet(CLIENT, SERVER, 0, b"hello"),
    packet(SERVER, CLIENT, 70, b"from a connection whose beginning was not seen"),
)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_stream_is_put_together_once_whatever_the_order_and_the_copies(order: str) -> None:
    pieces = [
        packet(CLIENT, SERVER, 99, flags=_SYN),
        *(packet(CLIENT, SERVER, 100 + at, b"abcdef"[at:]) for at in (3, 0)),
    ]

    assert streams(capture(*pieces, order=order)) == {(CLIENT, SERVER): b"abcdef"}


def test_sequence_numbers_wrap_and_what_has_no_beginning_is_left_out() -> None:
    assert streams(_WHOLE) == {(CLIENT, SERVER): b"helloworld"}


def test_a_stream_ends_at_its_first_gap() -> None:
    pieces = [packet(CLIENT, SERVER, 0, flags=_SYN), packet(CLIENT, SERVER, 1, b"ab"), packet(CLIENT, SERVER, 4, b"d")]

    assert streams(capture(*pieces)) == {(CLIENT, SERVER): b"ab"}


def test_another_kind_of_link_has_no_segments() -> None:
    assert list(segments(capture(packet(CLIENT, SERVER, 0), link=9))) == []


def test_a_capture_that_is_cut_or_damaged_anywhere_is_read_as_far_as_it_goes() -> None:
    for at in range(len(_WHOLE)):
        hellos(_WHOLE[:at], SERVER.address)
        hellos(_WHOLE[:at] + bytes([_WHOLE[at] ^ 0xFF]) + _WHOLE[at + 1 :], SERVER.address)


@given(st.binary(max_size=300))
def test_whatever_comes_is_read(noise: bytes) -> None:
    hellos(noise, SERVER.address)
    hellos(capture(packet(CLIENT, SERVER, 0, flags=_SYN), packet(CLIENT, SERVER, 1, noise)), SERVER.address)
