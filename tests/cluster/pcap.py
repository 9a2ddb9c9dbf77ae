"""What tcpdump wrote, as the bytes that each end of each TCP connection sent."""

from __future__ import annotations

import ipaddress
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

# The classic file format, in either byte order, with microseconds or nanoseconds.
_MAGIC: Final = {
    **{b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"},
    **{b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\x3c\x4d": ">"},
}
_FILE_HEADER: Final = 24
_PACKET_HEADER: Final = 16
# Link types: where the packet's protocol stands, and how long the header is. Interfaces of "any" are the cooked ones.
_LINKS: Final = {1: (12, 14), 113: (14, 16), 276: (0, 20)}
_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6


class End(NamedTuple):
    """One end of a connection."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Segment:
    """What one packet carries of a connection."""

    source: End
    destination: End
    sequence: int
    is_syn: bool
    payload: bytes


def segments(capture: bytes) -> Iterator[Segment]:
    """The TCP segments of a capture, in the order in which they were seen.

    What is no capture, or of another kind of link, has none; a last packet that is cut is left out.
    """
    order = _MAGIC.get(capture[:4])
    if order is None or len(capture) < _FILE_HEADER:
        return
    (link,) = struct.unpack_from(f"{order}I", capture, 20)
    if (link & 0xFFFF) not in _LINKS:
        return
    protocol_at, header = _LINKS[link & 0xFFFF]
    at = _FILE_HEADER
    while at + _PACKET_HEADER <= len(capture):
        (length,) = struct.unpack_from(f"{order}I", capture, at + 8)
        packet = capture[at + _PACKET_HEADER :][:length]
        at += _PACKET_HEADER + length
        if len(packet) == length and length >= header:
            (protocol,) = struct.unpack_from(">H", packet, protocol_at)
            yield from _of_ip(protocol, packet[header:])


def _of_ip(protocol: int, packet: bytes) -> Iterator[Segment]:
    if protocol == _IPV4 and len(packet) >= 20 and packet[9] == _TCP:
        (total,) = struct.unpack_from(">H", packet, 2)
        addresses, rest = (packet[12:16], packet[16:20]), packet[(packet[0] & 15) * 4 : total or None]
    elif protocol == _IPV6 and len(packet) >= 40 and packet[6] == _TCP:
        addresses, rest = (packet[8:24], packet[24:40]), packet[40:]
    else:
        return
    if len(rest) < 20:
        return
    ports = struct.unpack_from(">HH", rest)
    source, destination = (
        End(str(ipaddress.ip_address(one)), port) for one, port in zip(addresses, ports, strict=True)
    )
    (sequence,) = struct.unpack_from(">I", rest, 4)
    yield Segment(source, destination, sequence, bool(rest[13] & 2), rest[(rest[12] >> 4) * 4 :])


def streams(capture: bytes) -> dict[tuple[End, End], bytes]:
    """What each end sent to the other, in order, as far as it was seen from the first byte without a gap."""
    first: dict[tuple[End, End], int] = {}
    parts: defaultdict[tuple[End, End], dict[int, bytes]] = defaultdict(dict)
    for one in segments(capture):
        ends = (one.source, one.destination)
        if one.is_syn:
            first[ends] = one.sequence + 1
        elif one.payload and ends in first:
            # The same packet is seen at each interface that it passes; a longer one of the same place wins.
            offset = (one.sequence - first[ends]) % 2**32
            parts[ends][offset] = max(parts[ends].get(offset, b""), one.payload, key=len)
    return {ends: _joined(found) for ends, found in parts.items()}


def _joined(parts: dict[int, bytes]) -> bytes:
    whole = bytearray()
    for offset in sorted(parts):
        if offset > len(whole):
            break
        whole += parts[offset][len(whole) - offset :]
    return bytes(whole)
