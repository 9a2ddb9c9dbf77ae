"""The counters of what happens on the way to peers."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from proxy.peers.metrics import MAX_PEERS, OTHER, PeerMetrics


@pytest.fixture
def counted():
    """(metrics, what a counter says)"""
    registry = CollectorRegistry()
    return PeerMetrics(registry), lambda name, **labels: registry.get_sample_value(name, labels)


def test_each_event_has_its_counter(counted):
    metrics, value = counted
    metrics.fell_back("a", "plain_answer")
    metrics.withheld("a")
    metrics.retried("a", within_budget=True)
    metrics.retried("a", within_budget=False)
    metrics.ejected("a")
    metrics.ejected_now("a", 1)
    metrics.reloaded(ok=True)
    metrics.reloaded(ok=False)
    assert value("qbitel_plaintext_fallbacks_total", peer="a", reason="plain_answer") == 1
    assert value("qbitel_plaintext_fallbacks_withheld_total", peer="a") == 1
    assert value("qbitel_connect_retries_total", peer="a", result="made") == 1
    assert value("qbitel_connect_retries_total", peer="a", result="over_budget") == 1
    assert value("qbitel_endpoint_ejections_total", peer="a") == 1
    assert value("qbitel_endpoints_ejected", peer="a") == 1
    assert value("qbitel_peers_reloads_total", result="ok") == 1
    assert value("qbitel_peers_reloads_total", result="failed") == 1
    metrics.ejected_now("a", 0)
    assert value("qbitel_endpoints_ejected", peer="a") == 0


def test_entries_that_come_and_go_for_weeks_do_not_make_it_grow(counted):
    metrics, value = counted
    for number in range(MAX_PEERS + 10):
        metrics.withheld(f"peer-{number}")
    assert value("qbitel_plaintext_fallbacks_withheld_total", peer=OTHER) == 10
    metrics.withheld("peer-0")
    assert value("qbitel_plaintext_fallbacks_withheld_total", peer="peer-0") == 2
