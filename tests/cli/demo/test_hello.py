from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.demo.hello import Hello, UnreadableError, looks_like_tls, read_hello
from cli.demo.search import Search


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


def hello_message(share: bytes = bytes(1600)) -> bytes:
    """A ClientHello by hand (RFC 8446 §4.1.2): two protocols, two key shares."""
    protocols = b"".join(bytes([len(name)]) + name for name in (b"qbitel-tcp/1", b"h2"))
    shares = struct.pack(">HH", 0xFEC4, len(share)) + share + struct.pack(">HH", 0x001D, 2) + b"ab"
    extensions = extension(16, struct.pack(">H", len(protocols)) + protocols)
    extensions += extension(43, b"\x02\x03\x04") + extension(51, struct.pack(">H", len(shares)) + shares)
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x02" + b"\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(message: bytes, size: int) -> bytes:
    parts = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x03" + struct.pack(">H", len(part)) + part for part in parts)


EXPECTED = Hello((b"qbitel-tcp/1", b"h2"), (0xFEC4, 0x001D))


@pytest.mark.parametrize("size", [1, 100, 700, 16384])
def test_protocols_and_groups_are_read_from_one_record_or_many(size: int) -> None:
    assert read_hello(records(hello_message(), size)) == EXPECTED


def test_what_follows_the_hello_does_not_matter() -> None:
    assert read_hello(records(hello_message(), 500) + b"\x14\x03\x03\x00\x01\x01") == EXPECTED


def test_every_shorter_piece_is_unreadable() -> None:
    stream = records(hello_message(bytes(20)), 16384)
    for length in range(len(stream)):
        with pytest.raises(UnreadableError):
            read_hello(stream[:length])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_read_or_unreadable(noise: bytes) -> None:
    for stream in (noise, b"\x16\x03\x01\x01\x00\x01\x00\x00\xf0" + noise):
        try:
            read_hello(stream)
        except UnreadableError:
            continue


def test_tls_is_told_from_http() -> None:
    assert looks_like_tls(records(hello_message(), 16384))
    assert not looks_like_tls(b"GET / HTTP/1.1")
    assert not looks_like_tls(b"\x16\x03")


def test_a_search_reads_a_hello_that_comes_in_pieces_once() -> None:
    stream = bytearray(records(hello_message(), 1000))
    search = Search({"request": b"nothing of the kind"})
    search.opened("flow")
    for start in range(0, len(stream), 7):
        search.feed("flow", stream, start, min(start + 7, len(stream)))
    search.feed("flow", bytearray(b"\x17\x03\x03" + bytes(100)), 0, 103)
    report = search.report()
    assert (report.flows, report.tls_flows) == (1, 1)
    assert report.alpn == ["h2", "qbitel-tcp/1"]
    assert report.groups == [0x001D, 0xFEC4]
