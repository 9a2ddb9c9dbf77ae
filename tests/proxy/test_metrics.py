"""Names, labels, and the bounds of both."""

from __future__ import annotations

import datetime

import pytest
from prometheus_client import Counter, generate_latest

from proxy.config import Direction, WorkloadConfig
from proxy.metrics import MAX_PRINCIPALS, EnrolmentMetrics, Metrics
from proxy.reasons import Flag

WEB = "spiffe://cluster.local/ns/shop/sa/web"
API = "spiffe://cluster.local/ns/bank/sa/api"


@pytest.fixture
def metrics():
    return Metrics()


def series(metrics: Metrics, name: str, **labels: str) -> float:
    """The one series of this name with these labels."""
    lines = [line for line in generate_latest(metrics.registry).decode().splitlines() if line.startswith(name + "{")]
    (line,) = [line for line in lines if all(f'{key}="{value}"' in line for key, value in labels.items())]
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize(
    ("direction", "local", "peer", "reporter"),
    [(Direction.OUTBOUND, WEB, API, "source"), (Direction.INBOUND, API, WEB, "destination")],
)
def test_both_reporters_name_the_same_source_and_destination(metrics, direction, local, peer, reporter):
    counters = metrics.tcp(direction, local, peer, True)
    counters.opened.inc()
    counters.received.inc(10)
    counters.sent.inc(20)
    counters.count_closed(Flag.TIMEOUT)
    labels = {
        "reporter": reporter,
        "source_principal": WEB,
        "source_workload_namespace": "shop",
        "destination_principal": API,
        "destination_workload_namespace": "bank",
        "connection_security_policy": "mutual_tls",
        "request_protocol": "tcp",
        "source_workload": "unknown",
    }
    assert series(metrics, "istio_tcp_connections_opened_total", response_flags="-", **labels) == 1
    assert series(metrics, "istio_tcp_received_bytes_total", **labels) == 10
    assert series(metrics, "istio_tcp_sent_bytes_total", **labels) == 20
    assert series(metrics, "istio_tcp_connections_closed_total", response_flags="TIMEOUT", **labels) == 1


def test_plaintext_has_no_principal_and_says_so(metrics):
    metrics.tcp(Direction.INBOUND, API, "-", False).opened.inc()
    labels = {"source_principal": "unknown", "connection_security_policy": "none"}
    assert series(metrics, "istio_tcp_connections_opened_total", **labels) == 1


def test_endlessly_many_peers_do_not_make_endlessly_many_series(metrics):
    for number in range(MAX_PRINCIPALS + 50):
        metrics.tcp(Direction.INBOUND, API, f"{WEB}-{number}", True).opened.inc()
    assert series(metrics, "istio_tcp_connections_opened_total", source_principal="other") == 50
    text = generate_latest(metrics.registry).decode()
    assert text.count("\nistio_tcp_connections_opened_total{") == MAX_PRINCIPALS + 1


def test_reasons_that_a_peer_makes_up_are_one_label(metrics):
    for reason in ("expired", "x1", "x2"):
        metrics.refused(Direction.INBOUND, reason)
        metrics.handshake(Direction.INBOUND, "qbitel", "-", "-", reason)
    assert series(metrics, "qbitel_connections_refused_total", reason="other") == 2
    assert series(metrics, "qbitel_tls_handshakes_total", result="other") == 2
    assert series(metrics, "qbitel_tls_handshakes_total", result="expired") == 1


def test_handshakes_are_timed_by_direction(metrics):
    metrics.handshake_took(Direction.OUTBOUND, 0.004)
    assert series(metrics, "qbitel_tls_handshake_seconds_bucket", direction="outbound", le="0.005") == 1
    assert series(metrics, "qbitel_tls_handshake_seconds_bucket", direction="outbound", le="0.002") == 0


def test_open_connections_go_up_and_down(metrics):
    metrics.connection_opened(Direction.INBOUND)
    metrics.connection_opened(Direction.INBOUND)
    metrics.connection_gone(Direction.INBOUND)
    assert series(metrics, "qbitel_connections_open", direction="inbound") == 1


def test_creation_times_are_left_out(metrics):
    metrics.tcp(Direction.INBOUND, API, WEB, True).opened.inc()
    assert "_created" not in generate_latest(metrics.registry).decode()


def test_enrolment_is_counted_only_where_there_is_an_authority(metrics):
    assert "authority" not in generate_latest(metrics.registry).decode()
    counts = EnrolmentMetrics(metrics)
    for result in ("ok", "unreachable", "unreachable"):
        counts.rotation(result)
    counts.succeeded_at(datetime.datetime(2030, 5, 17, tzinfo=datetime.UTC))
    counts.reachable(True)
    value = metrics.registry.get_sample_value
    assert value("qbitel_cert_rotations_total", {"result": "unreachable"}) == 2
    assert value("qbitel_cert_last_success_timestamp_seconds") == 1905206400
    assert value("qbitel_authority_reachable") == 1
    counts.reachable(False)
    assert value("qbitel_authority_reachable") == 0


def test_what_we_are_called_stands_on_our_side_and_nothing_is_made_up_for_the_other():
    workload = WorkloadConfig(name="web-v1", app="web", version="v1", canonical_service="web", canonical_revision="v1")
    metrics = Metrics(workload)
    metrics.tcp(Direction.OUTBOUND, WEB, API, True).opened.inc()
    metrics.tcp(Direction.INBOUND, WEB, API, True).opened.inc(2)
    opened = "istio_tcp_connections_opened_total"
    source = {"source_workload": "web-v1", "source_app": "web", "source_canonical_revision": "v1"}
    assert series(metrics, opened, destination_workload="unknown", destination_service_name="unknown", **source) == 1
    destination = {"destination_workload": "web-v1", "destination_service_name": "web", "destination_version": "v1"}
    assert series(metrics, opened, source_workload="unknown", source_app="unknown", **destination) == 2


def test_streams_of_tunnels_and_waiting_handshakes_are_numbers_of_this_moment(metrics):
    metrics.stream_opened(Direction.INBOUND)
    metrics.stream_opened(Direction.INBOUND)
    metrics.stream_gone(Direction.INBOUND)
    metrics.handshake_queue.set(5)
    assert series(metrics, "qbitel_tunnel_streams_open", direction="inbound") == 1
    assert series(metrics, "qbitel_tunnel_streams_open", direction="outbound") == 0
    assert "qbitel_handshake_queue 5.0" in generate_latest(metrics.registry).decode()


def test_changes_are_added_up_until_somebody_reads_or_they_are_settled(metrics):
    opened = Counter("opened", "", registry=None)
    tally = metrics.tally(opened)
    for _ in range(3):
        tally.inc()
    tally.inc(4)
    assert opened._value.get() == 0
    metrics.settle()
    metrics.settle()
    assert opened._value.get() == 7


def test_whoever_reads_has_everything_brought_up_to_date_first(metrics):
    metrics.connection_opened(Direction.INBOUND)
    seen = []

    def before_reading():
        seen.append(1)
        metrics.connection_gone(Direction.INBOUND)
        metrics.settle()

    metrics.before_reading = before_reading
    assert series(metrics, "qbitel_connections_open", direction="inbound") == 0
    assert seen == [1]
