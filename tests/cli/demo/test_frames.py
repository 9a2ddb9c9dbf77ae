from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.demo.frames import MAX_SEGMENT, PCAP_HEADER, make_frame, parse_segment, pcap_record


def test_a_made_frame_is_parsed_back() -> None:
    frame = bytearray(make_frame(4321, 80, 7, b"payload"))
    segment = parse_segment(frame, len(frame))
    assert segment is not None
    assert frame[segment.start : segment.end] == b"payload"
    assert segment.flow[-4:] == struct.pack(">HH", 4321, 80)
    assert not segment.opens


def test_padding_behind_a_short_packet_is_no_payload() -> None:
    frame = bytearray(make_frame(1, 2, 0, b"x") + bytes(20))
    segment = parse_segment(frame, len(frame))
    assert segment is not None
    assert segment.end - segment.start == 1


def test_a_syn_opens_a_connection_and_its_answer_does_not() -> None:
    frame = bytearray(make_frame(1, 2, 0, b""))
    for flags, opens in ((0x02, True), (0x12, False), (0x10, False), (0x42, True)):
        frame[14 + 20 + 13] = flags
        segment = parse_segment(frame, len(frame))
        assert segment is not None
        assert segment.opens is opens


def test_ipv6_is_understood() -> None:
    tcp = struct.pack(">HHIIBBHHH", 5, 6, 0, 0, 5 << 4, 2, 0, 0, 0)
    ip = struct.pack(">IHBB", 6 << 28, len(tcp) + 3, 6, 64) + bytes(range(32))
    frame = bytearray(bytes(12) + b"\x86\xdd" + ip + tcp + b"abc")
    segment = parse_segment(frame, len(frame))
    assert segment is not None
    assert frame[segment.start : segment.end] == b"abc"
    assert segment.flow == bytes(range(32)) + struct.pack(">HH", 5, 6)


@pytest.mark.parametrize("ethertype", [b"\x08\x06", b"\x88\xcc"])
def test_other_protocols_are_nothing(ethertype: bytes) -> None:
    assert parse_segment(bytearray(bytes(12) + ethertype + bytes(60)), 74) is None


@given(st.binary(max_size=120), st.sampled_from([b"\x08\x00\x45", b"\x86\xdd\x60"]))
def test_arbitrary_frames_never_raise_and_never_reach_beyond_the_frame(noise: bytes, kind: bytes) -> None:
    frame = bytearray(bytes(12) + kind + noise)
    segment = parse_segment(frame, len(frame))
    assert segment is None or segment.end <= len(frame)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_tcpdump_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    frame = make_frame(1234, 8080, 1, b"hello" * 100)
    path.write_bytes(PCAP_HEADER + pcap_record(1_700_000_000_123_456_000, frame, len(frame)) * 3)
    path.chmod(0o644)
    shown = subprocess.run(
        ["tcpdump", "-nr", str(path), "--absolute-tcp-sequence-numbers"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.count("127.0.0.1.1234 > 127.0.0.1.8080: Flags [P.], seq 1:501") == 3
    assert ".123456 IP" in shown


def test_the_largest_segment_fits_into_ipv4() -> None:
    frame = make_frame(1, 2, 0, bytes(MAX_SEGMENT))
    assert struct.unpack_from(">H", frame, 16)[0] == 65535
