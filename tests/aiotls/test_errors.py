"""Each failure is something that asyncio's programs already catch, and says more."""

from __future__ import annotations

import pytest

from aiotls.errors import (
    HandshakeEvicted,
    HandshakeTimeout,
    ShutdownTimeout,
    StreamTruncated,
    TlsConnectionError,
    of_peer_error,
)
from pqtls import Alert, CertificateRefused, TruncatedStream


def test_a_peers_fault_keeps_its_reason_its_alert_and_its_sentence() -> None:
    fault = CertificateRefused("its certificate has expired", Alert.CERTIFICATE_EXPIRED, "expired")
    error = of_peer_error(fault)
    assert isinstance(error, ConnectionError)
    assert error.peer_error is fault
    assert error.reason == "expired"
    assert str(error) == error.strerror == "its certificate has expired"


def test_a_cut_stream_is_also_a_reset() -> None:
    error = of_peer_error(TruncatedStream("cut"))
    assert isinstance(error, StreamTruncated)
    assert isinstance(error, ConnectionResetError)


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (HandshakeTimeout(2.5), "handshake_timeout", "within 2.5 s"),
        (HandshakeEvicted(7), "handshake_evicted", "more than 7"),
        (ShutdownTimeout(99, 3.0), "shutdown_timeout", "99 bytes were not sent"),
    ],
)
def test_our_own_reasons_are_slugs_beside_sentences(error: TlsConnectionError, reason: str, words: str) -> None:
    assert isinstance(error, ConnectionError)
    assert error.reason == reason
    assert words in str(error)
