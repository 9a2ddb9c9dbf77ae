from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.demo.search import MAX_FLOWS, Search, WireReport

PATTERNS = {"request": b"token-request", "response": b"token-response"}


def feed(search: Search, flow: object, *parts: bytes) -> None:
    for part in parts:
        search.feed(flow, bytearray(part), 0, len(part))


@given(st.lists(st.integers(0, 60), max_size=8))
def test_what_was_sent_is_found_exactly_once_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"xx token-request yy token-response zz token-request."
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    search = Search(PATTERNS)
    feed(search, "flow", *(stream[start:end] for start, end in pairwise(edges)))
    assert search.report().hits == {"request": 2, "response": 1}


def test_byte_by_byte_it_is_still_found() -> None:
    search = Search(PATTERNS)
    feed(search, "flow", *(bytes([byte]) for byte in b"--token-response--"))
    assert search.report().hits == {"request": 0, "response": 1}


def test_halves_in_different_flows_are_no_hit() -> None:
    search = Search(PATTERNS)
    feed(search, "a", b"token-re")
    feed(search, "b", b"quest")
    assert search.report().total_hits == 0


def test_patterns_without_a_common_beginning_are_found_too() -> None:
    search = Search({"one": b"alpha", "two": b"beta"})
    feed(search, "flow", b"..alpha..be", b"ta..")
    assert search.report().hits == {"one": 1, "two": 1}


def test_only_the_given_part_of_the_buffer_is_looked_at() -> None:
    search = Search(PATTERNS)
    search.feed("flow", bytearray(b"token-request"), 1, 13)
    assert search.report().total_hits == 0
    assert search.report().bytes == 12


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="empty pattern"):
        Search({"nothing": b""})


def test_a_client_that_sends_plain_http_is_a_flow_but_no_tls_flow() -> None:
    search = Search(PATTERNS)
    search.opened("flow")
    feed(search, "flow", b"GET / HTTP/1.1\r\n\r\n")
    report = search.report()
    assert (report.flows, report.tls_flows) == (1, 0)
    assert bytes.fromhex(report.sample).startswith(b"GET / HTTP")


def test_where_no_client_sends_the_servers_words_are_the_sample() -> None:
    search = Search(PATTERNS)
    search.opened("client")
    feed(search, "server", b"-DENIED")
    assert bytes.fromhex(search.report().sample) == b"-DENIED"


def test_old_flows_are_forgotten() -> None:
    search = Search(PATTERNS)
    for flow in range(MAX_FLOWS + 10):
        feed(search, flow, b"x")
    assert len(search._flows) == MAX_FLOWS


def test_a_report_survives_json_and_knows_whether_it_is_complete() -> None:
    report = WireReport(frames=3, bytes=9, hits={"file": 2}, flows=1, alpn=["a"], groups=[5], sample="00")
    assert WireReport.from_json(report.to_json()) == report
    assert report.total_hits == 2
    assert report.complete
    assert not WireReport(dropped=1).complete
    assert not WireReport(truncated=1).complete
