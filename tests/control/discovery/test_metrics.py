"""The numbers of discovery."""

from __future__ import annotations

from control.discovery.metrics import Metrics


def test_a_namespace_s_faults_are_shown_until_they_are_gone() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value

    metrics.show(faults={"shop": 2, "bank": 1}, namespaces=5, behind=3, seconds=0.5)
    assert value("qbitel_discovery_errors", {"namespace": "shop"}) == 2
    assert value("qbitel_discovery_namespaces") == 5
    assert value("qbitel_discovery_namespaces_behind") == 3
    assert value("qbitel_discovery_planning_seconds") == 0.5
    metrics.show(faults={"bank": 4}, namespaces=5, behind=0, seconds=0.1)
    assert value("qbitel_discovery_errors", {"namespace": "shop"}) is None
    assert value("qbitel_discovery_errors", {"namespace": "bank"}) == 4


def test_what_is_running_is_shown() -> None:
    (found,) = [one for one in Metrics().registry.collect() if one.name == "qbitel_build_info"]

    assert set(found.samples[0].labels) == {"version", "python"}
