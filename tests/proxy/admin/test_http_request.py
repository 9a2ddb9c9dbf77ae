"""Heads of requests: what is taken, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.http_request import BadRequest, may_become_request, parse

PLAIN = b"GET /connections?limit=5&format=text HTTP/1.1\r\nHost: localhost:15000\r\nAccept: */*"


def test_a_request_is_its_method_path_parameters_and_headers():
    request = parse(PLAIN)
    assert (request.method, request.path, request.host) == ("GET", "/connections", "localhost:15000")
    assert request.parameters == {"limit": "5", "format": "text"}
    assert request.headers["accept"] == "*/*"
    assert request.keep_alive


def test_an_absolute_target_names_the_host():
    request = parse(b"GET http://elsewhere/ready?x=%31 HTTP/1.1\r\nHost: localhost")
    assert (request.path, request.host, request.parameters) == ("/ready", "elsewhere", {"x": "1"})


def test_a_beginning_is_told_from_what_will_never_be_a_request():
    for length in range(len(PLAIN)):
        assert may_become_request(PLAIN[:length])
    for other in (b"\x16\x03\x01", b"get /", b"GET\t/", b"\r\n", b"ABCDEFGHIJKLMNOPQ /"):
        assert not may_become_request(other)


@pytest.mark.parametrize(
    ("line", "keeps"),
    [(b"HTTP/1.1\r\nHost: a", True), (b"HTTP/1.1\r\nHost: a\r\nConnection: foo, Close", False), (b"HTTP/1.0", False)],
)
def test_the_connection_is_kept_as_the_version_and_the_client_want_it(line, keeps):
    assert parse(b"GET / " + line).keep_alive is keeps


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 400),
        (b"GET /", 400),
        (b"GET / HTTP/2.0\r\nHost: a", 400),
        (b"get / HTTP/1.1\r\nHost: a", 400),
        (b"GET  / HTTP/1.1\r\nHost: a", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a", 400),
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400),
        (b"GET / HTTP/1.1\r\nHost : a", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0", 400),
        (b"GET http://[/ HTTP/1.1\r\nHost: a", 400),
        (b"GET /?" + b"a=1&" * 17 + b" HTTP/1.1\r\nHost: a", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"\r\n".join(b"X: y" for _ in range(64)), 431),
    ],
)
def test_what_is_ambiguous_or_unknown_is_refused(head, status):
    with pytest.raises(BadRequest) as refused:
        parse(head)
    assert refused.value.status == status
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data):
    for head in (data, b"GET " + data + b" HTTP/1.1\r\nHost: a", PLAIN + b"\r\n" + data):
        try:
            parse(head)
        except BadRequest:
            continue


def test_every_cut_and_every_flipped_byte_is_a_request_or_refused():
    for at in range(len(PLAIN)):
        flipped = bytearray(PLAIN)
        for head in (PLAIN[:at], *(bytes(flipped[:at]) + bytes([flip]) + PLAIN[at + 1 :] for flip in (0, 10, 32, 255))):
            try:
                parse(head)
            except BadRequest:
                continue
