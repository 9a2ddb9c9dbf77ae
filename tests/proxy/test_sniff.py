"""Verdicts on first bytes, whole and in pieces, of real and of broken ClientHellos."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.names import ALPN_STREAM, ALPN_TUNNEL
from pqtls import ClientConnection
from proxy.sniff import MAX_HELLO, MAX_RECORDS, Verdict, sniff

OURS = frozenset({ALPN_STREAM, ALPN_TUNNEL})


@pytest.fixture(scope="module")
def our_hello(pki) -> bytes:
    return ClientConnection(pki.bundle("web").client(True)).data_to_send()


def foreign_hello(*alpn: str) -> bytes:
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    engine = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="example.org")
    with pytest.raises(ssl.SSLWantReadError):
        engine.do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    """Cut the handshake message of a one-record hello into records of `size` bytes."""
    message = hello[5:]
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def test_our_own_hello_is_ours(our_hello):
    assert sniff(our_hello, OURS) is Verdict.OUR_TLS


def test_our_hello_is_larger_than_one_segment(our_hello):
    assert len(our_hello) > 1460


def test_every_shorter_piece_of_our_hello_needs_more(our_hello):
    assert {sniff(our_hello[:length], OURS) for length in range(len(our_hello))} == {Verdict.NEED_MORE}


@pytest.mark.parametrize("size", [100, 700, 1000])
def test_a_hello_in_several_records_is_ours_and_each_piece_needs_more(our_hello, size):
    cut = in_records(our_hello, size)
    assert sniff(cut, OURS) is Verdict.OUR_TLS
    assert {sniff(cut[:length], OURS) for length in range(0, len(cut), 7)} == {Verdict.NEED_MORE}


def test_more_records_than_anybody_uses_is_no_hello_of_ours(our_hello):
    cut = in_records(our_hello, len(our_hello) // (MAX_RECORDS + 6))
    assert sniff(cut, OURS) is Verdict.OTHER_TLS


def test_bytes_behind_the_hello_do_not_matter(our_hello):
    assert sniff(our_hello + b"\x17\x03\x03\xff\xff garbage", OURS) is Verdict.OUR_TLS


@pytest.mark.parametrize("alpn", [(), ("h2",), ("h2", "http/1.1"), ("qbitel-tcp/2",)])
def test_the_hello_of_another_tls_client_is_other_tls(alpn):
    assert sniff(foreign_hello(*alpn), OURS) is Verdict.OTHER_TLS


def test_a_foreign_hello_that_offers_our_protocol_among_others_is_ours():
    assert sniff(foreign_hello("h2", ALPN_STREAM.decode()), OURS) is Verdict.OUR_TLS


def test_our_protocols_name_elsewhere_in_the_hello_is_not_enough():
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    engine = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="qbitel-tcp.1.example")
    with pytest.raises(ssl.SSLWantReadError):
        engine.do_handshake()
    assert sniff(outgoing.read(), frozenset({b"qbitel-tcp"})) is Verdict.OTHER_TLS


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x00",
        b"\x16\x02",  # SSL 2 would look like this
        b"\x16\x03\x05",
        b"\x16\x03\x01\x00\x00",  # an empty record
        b"\x16\x03\x01\x40\x01",  # longer than RFC 8446 §5.1 allows
        b"\x16\x03\x01\x00\x05\x02",  # a ServerHello
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
    ],
)
def test_what_cannot_be_a_client_hello_is_not_tls_at_its_first_wrong_byte(data):
    assert sniff(data, OURS) is Verdict.NOT_TLS


def test_a_hello_that_claims_to_be_huge_is_not_waited_for():
    claimed = (MAX_HELLO + 1).to_bytes(3, "big")
    assert sniff(b"\x16\x03\x01\x01\x00\x01" + claimed, OURS) is Verdict.OTHER_TLS


@settings(max_examples=1500)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_verdict(data):
    assert sniff(data, OURS) in Verdict


@settings(max_examples=1500)
@given(st.data())
def test_any_change_to_a_hello_gives_a_verdict(our_hello, data):
    changed = bytearray(our_hello)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)))
    assert sniff(bytes(changed[:cut]), OURS) in Verdict


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_a_hello_with_any_body_gives_a_verdict_and_never_waits_for_more(body):
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    record = b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message
    assert sniff(record, OURS) in (Verdict.OUR_TLS, Verdict.OTHER_TLS)
