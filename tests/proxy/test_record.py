"""One record per connection: every number and line once."""

from __future__ import annotations

import datetime

import pytest
from prometheus_client import generate_latest

from pqtls.errors import MisuseError
from pqtls.events import HandshakeCompleted
from proxy.config import Direction, Endpoint
from proxy.handshake import HandshakeResult
from proxy.metrics import Metrics
from proxy.reasons import CLOSED, Flag, Verdict
from proxy.record import ConnectionRecord, Sinks

NOW = datetime.datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=datetime.UTC)
LOCAL, PEER = "spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/default/sa/api"
RESULT = HandshakeResult(
    HandshakeCompleted(
        profile="qbitel",
        group="X25519MLKEM1024",
        signature_scheme="mldsa87",
        cipher_suite="TLS_AES_256_GCM_SHA384",
        peer_identity=PEER,
        peer_chain=(b"der",),
        alpn=None,
        server_name=None,
        resumed=False,
        client_authenticated=True,
    ),
    0.0041239,
    b"",
)


class Lines(list):
    """Stands where the access log does."""

    write = list.append


@pytest.fixture
def sinks():
    ticks = iter(range(1000))
    return Sinks(Metrics(), Lines(), lambda: NOW, lambda: float(next(ticks)))


@pytest.fixture
def record(sinks):
    return ConnectionRecord(sinks, Direction.OUTBOUND, Endpoint("10.0.0.1", 5), LOCAL, "qbitel")


def number(sinks, name: str) -> float:
    text = generate_latest(sinks.metrics.registry).decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + "{"))


def test_a_whole_life_is_two_lines(record, sinks):
    record.going_to(Endpoint("fd00::1", 8080))
    record.handshake_completed(RESULT)
    record.relaying()
    record.carried(100, 2000)
    record.close(CLOSED)
    handshake, connection = sinks.access_log
    assert handshake == {
        "time": "2026-11-23T12:00:00.123+00:00",
        "event": "handshake",
        "direction": "outbound",
        "source": "10.0.0.1:5",
        "destination": "[fd00::1]:8080",
        "local_identity": LOCAL,
        "connection_id": None,
        "peer_identity": PEER,
        "profile": "qbitel",
        "group": "X25519MLKEM1024",
        "signature": "mldsa87",
        "cipher_suite": "TLS_AES_256_GCM_SHA384",
        "resumed": False,
        "handshake_ms": 4.124,
    }
    assert connection == handshake | {
        "event": "connection",
        "duration_ms": 1000.0,
        "bytes_received": 100,
        "bytes_sent": 2000,
        "flag": "-",
        "reason": "-",
        "message": "",
        "policy": None,
        "received_as": None,
    }


def test_the_line_says_what_came_and_who_decided_about_it(record, sinks):
    record.received_as("mesh")
    record.decided("shop/web", {"policy_audited": "shop/audit"})
    assert record.describe()["policy"] == "shop/web"
    record.close(CLOSED)
    (line,) = sinks.access_log
    assert (line["received_as"], line["policy"], line["policy_audited"]) == ("mesh", "shop/web", "shop/audit")


@pytest.mark.parametrize(("direction", "received"), [(Direction.OUTBOUND, 100), (Direction.INBOUND, 2000)])
def test_received_is_what_the_client_sent_on_either_side(sinks, direction, received):
    record = ConnectionRecord(sinks, direction, Endpoint("10.0.0.1", 5), LOCAL, "qbitel")
    record.relaying()
    record.carried(100, 2000)
    record.close(CLOSED)
    assert sinks.access_log[-1]["bytes_received"] == received
    assert number(sinks, "istio_tcp_received_bytes_total") == received


def test_notes_are_fields_of_the_last_line(record, sinks):
    record.noted({"peer": "orders"})
    record.noted({"endpoint": "10.0.0.5:80"})
    record.close(CLOSED)
    (line,) = sinks.access_log
    assert (line["peer"], line["endpoint"]) == ("orders", "10.0.0.5:80")


def test_bytes_are_counted_while_the_connection_lives_and_never_twice(record, sinks):
    record.relaying()
    record.carried(10, 0)
    assert number(sinks, "istio_tcp_received_bytes_total") == 10
    record.carried(10, 5)
    record.carried(25, 5)
    assert number(sinks, "istio_tcp_received_bytes_total") == 25
    assert number(sinks, "istio_tcp_sent_bytes_total") == 5


def test_a_refusal_is_counted_and_said_in_one_line_with_both_addresses_and_who_we_are(record, sinks, caplog):
    record.going_to(Endpoint("10.0.0.2", 80))
    record.handshake_failed("expired")
    record.close(Verdict(Flag.IDENTITY_ERROR, "expired", "it is too old", refused=True))
    (warning,) = caplog.records
    for part in ("10.0.0.1:5", "10.0.0.2:80", LOCAL, "expired", "it is too old"):
        assert part in warning.getMessage()
    assert number(sinks, "qbitel_connections_refused_total") == 1
    assert number(sinks, "qbitel_tls_handshakes_total") == 1
    assert number(sinks, "istio_tcp_connections_opened_total") == 0


def test_a_connection_ends_once(record, sinks):
    record.close(CLOSED)
    with pytest.raises(MisuseError):
        record.close(CLOSED)
    assert len(sinks.access_log) == 1
    assert number(sinks, "qbitel_connections_open") == 0


def test_a_passthrough_is_counted_as_plaintext(record, sinks):
    record.relaying()
    record.close(CLOSED)
    assert number(sinks, "qbitel_plaintext_connections_total") == 1
    assert sinks.access_log[-1]["group"] is None


def test_a_stranger_who_can_write_into_a_sentence_writes_one_printable_line(record, caplog):
    record.close(Verdict(Flag.IDENTITY_ERROR, "expired", "evil\n\x1b[2J" + "x" * 100_000, refused=True))
    (warning,) = caplog.messages
    assert warning.isprintable()
    assert len(warning) < 4096


def test_a_flood_of_refusals_is_counted_whole_and_logged_in_part(sinks, caplog):
    for _ in range(400):
        ConnectionRecord(sinks, Direction.INBOUND, Endpoint("10.0.0.1", 5), LOCAL, "qbitel").close(
            Verdict(Flag.DENY, "plaintext_refused", "no", refused=True)
        )
    assert number(sinks, "qbitel_connections_refused_total") == 400
    assert 200 <= len(caplog.messages) < 300
