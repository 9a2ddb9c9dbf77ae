"""Ethernet frames with TCP in them, taken apart and made; and the pcap file format they are kept in."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

ETHERNET_HEADER: Final = 14
ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_IPV6: Final = 0x86DD
PROTOCOL_TCP: Final = 6
IPV6_HEADER: Final = 40
TCP_SYN: Final = 0x02
TCP_ACK: Final = 0x10
TCP_PUSH: Final = 0x08
# A virtual link carries TCP segments of up to 64 KiB whole (segmentation is left to hardware that is not there);
# with headers they stay below this.
MAX_FRAME: Final = 1 << 18
# The pcap format: magic for microseconds, version 2.4, time zone, accuracy, longest frame, link type 1 = Ethernet.
PCAP_HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, MAX_FRAME, 1)
# What IPv4's total length leaves after its own header and TCP's.
MAX_SEGMENT: Final = 65535 - 40


@dataclass(frozen=True, slots=True)
class Segment:
    """Where one frame's TCP payload stands. `flow` names its direction of its connection."""

    flow: bytes
    flags: int
    start: int
    end: int

    @property
    def opens(self) -> bool:
        """Whether a client opens its connection with it: SYN without ACK."""
        return self.flags & (TCP_SYN | TCP_ACK) == TCP_SYN


def parse_segment(frame: bytearray, length: int) -> Segment | None:
    """Find the TCP segment in the first `length` bytes of `frame`; None where there is none, or it is cut."""
    if length < ETHERNET_HEADER + IPV6_HEADER // 2:
        return None
    (ethertype,) = struct.unpack_from(">H", frame, 12)
    ip = ETHERNET_HEADER
    if ethertype == ETHERTYPE_IPV4 and frame[ip + 9] == PROTOCOL_TCP:
        tcp = ip + 4 * (frame[ip] & 15)
        end = ip + int.from_bytes(frame[ip + 2 : ip + 4], "big")
        addresses = slice(ip + 12, ip + 20)
    elif ethertype == ETHERTYPE_IPV6 and length >= ip + IPV6_HEADER and frame[ip + 6] == PROTOCOL_TCP:
        tcp = ip + IPV6_HEADER
        end = tcp + int.from_bytes(frame[ip + 4 : ip + 6], "big")
        addresses = slice(ip + 8, ip + 40)
    else:
        return None
    if length < tcp + 20:
        return None
    start = tcp + 4 * (frame[tcp + 12] >> 4)
    return Segment(bytes(frame[addresses] + frame[tcp : tcp + 4]), frame[tcp + 13], start, min(end, length))


def pcap_record(time_ns: int, frame: bytes | bytearray | memoryview, original_length: int) -> bytes:
    """One record's header and frame."""
    header = struct.pack("<IIII", time_ns // 10**9, time_ns % 10**9 // 1000, len(frame), original_length)
    return header + bytes(frame)


def make_frame(source_port: int, target_port: int, sequence: int, payload: bytes) -> bytes:
    """An IPv4 frame on loopback addresses around `payload`: for bytes that a relay saw, which had no frame.

    `payload` has at most MAX_SEGMENT bytes. Checksums are zero, which readers of pcap files take as "not computed".
    """
    ethernet = bytes(12) + struct.pack(">H", ETHERTYPE_IPV4)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(payload), 0, 0x4000, 64, PROTOCOL_TCP, 0)
    addresses = bytes([127, 0, 0, 1, 127, 0, 0, 1])
    tcp = struct.pack(
        ">HHIIBBHHH",
        source_port,
        target_port,
        sequence & 0xFFFFFFFF,
        0,
        5 << 4,
        TCP_ACK | TCP_PUSH,
        65535,
        0,
        0,
    )
    return ethernet + ip + addresses + tcp + payload
