"""What an injector counts."""

from __future__ import annotations

import datetime

from prometheus_client import generate_latest

from injector.metrics import Metrics
from injector.review import Verdict

NOW = datetime.datetime(2030, 5, 17, 12, tzinfo=datetime.UTC)


def shown(metrics: Metrics, **figures: int) -> list[str]:
    end = NOW + datetime.timedelta(hours=1)
    metrics.show(end, NOW, **{"connections": 0, "evicted": 0, **figures})
    return generate_latest(metrics.registry).decode().splitlines()


def test_every_result_is_there_from_the_beginning_and_no_other() -> None:
    found = [line for line in shown(Metrics()) if line.startswith("qbitel_injections_total")]

    assert sorted(found) == sorted(f'qbitel_injections_total{{result="{verdict}"}} 0.0' for verdict in Verdict)


def test_answers_are_counted_and_timed() -> None:
    metrics = Metrics()
    metrics.answered(Verdict.INJECTED)
    metrics.took(0.0007)

    lines = shown(metrics)

    assert 'qbitel_injections_total{result="injected"} 1.0' in lines
    assert 'qbitel_injection_seconds_bucket{le="0.0005"} 0.0' in lines
    assert 'qbitel_injection_seconds_bucket{le="0.001"} 1.0' in lines


def test_what_is_known_only_when_it_is_asked_for_is_of_that_moment() -> None:
    metrics = Metrics()
    shown(metrics, connections=9, evicted=2)

    lines = shown(metrics, connections=3, evicted=5)

    assert "qbitel_cert_expiry_seconds 3600.0" in lines
    assert "qbitel_injector_connections 3.0" in lines
    assert "qbitel_injector_connections_evicted_total 5.0" in lines
    assert any(line.startswith("qbitel_build_info{") for line in lines)
    assert not any("_created" in line for line in lines)
