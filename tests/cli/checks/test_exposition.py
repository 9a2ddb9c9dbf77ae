"""What is read of a sidecar's metrics."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cli.checks.exposition import read_figures


def exposed() -> str:
    registry = CollectorRegistry()
    Gauge("qbitel_cert_expiry_seconds", "Until it ends.", registry=registry).set(-12.5)
    counter = Counter("qbitel_plaintext_connections", "Plain.", ("direction",), registry=registry)
    counter.labels("inbound").inc(3)
    Histogram("qbitel_tls_handshake_seconds", "Time.", registry=registry).observe(1)
    Counter("istio_tcp_sent_bytes", "Others.", registry=registry).inc()
    return generate_latest(registry).decode()


def test_our_series_are_read_with_their_labels_and_no_others() -> None:
    figures = read_figures(exposed())
    assert figures["qbitel_cert_expiry_seconds", ()] == -12.5
    assert figures["qbitel_plaintext_connections_total", (("direction", "inbound"),)] == 3
    assert not [name for name, _ in figures if "bucket" in name or name.startswith("istio")]


@pytest.mark.parametrize("bad", ["qbitel_a", 'qbitel_a{b="c" 1', "qbitel_a one"])
def test_what_is_no_series_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="format"):
        read_figures(bad)


@given(st.text(max_size=60))
def test_no_line_is_too_strange(text: str) -> None:
    with contextlib.suppress(ValueError):
        read_figures(f"qbitel_{text}")


@given(st.integers(0, 5000), st.characters())
def test_a_damaged_answer_is_read_or_refused(place: int, character: str) -> None:
    text = exposed()
    place %= len(text)
    for damaged in (text[:place], text[:place] + character + text[place + 1 :]):
        with contextlib.suppress(ValueError):
            read_figures(damaged)
