"""What policies decide is counted by their names, of which there are never too many."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from mesh.authorization import Action
from mesh.decision import Decision
from proxy.policy.metrics import MAX_POLICIES, MAX_SOURCES, PolicyMetrics


def decision(policy: str | None, allowed: bool = True, **more) -> Decision:
    return Decision(allowed, Action.ALLOW, policy, 0, "", **more)


def values(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == name
    }


def test_decisions_dry_runs_and_audits_are_counted_by_policy():
    registry = CollectorRegistry()
    metrics = PolicyMetrics(registry)
    metrics.decided(decision("a/x"))
    metrics.decided(decision("a/x"))
    metrics.decided(decision(None, allowed=False))
    metrics.decided(decision("a/x", dry_run=decision("a/y", allowed=False), audited=("a/z",)))
    assert values(registry, "qbitel_policy_decisions_total") == {
        ("allow", "a/x"): 3,
        ("deny", "-"): 1,
        ("dry_run_deny", "a/y"): 1,
        ("audit", "a/z"): 1,
    }


def test_policies_and_sources_beyond_the_bound_are_counted_together():
    registry = CollectorRegistry()
    metrics = PolicyMetrics(registry)
    for number in range(MAX_POLICIES + 10):
        metrics.decided(decision(f"a/{number}"))
    for number in range(MAX_SOURCES + 10):
        metrics.plaintext(str(number))
    assert values(registry, "qbitel_policy_decisions_total")["allow", "other"] == 10
    assert values(registry, "qbitel_plaintext_peer_connections_total")["other",] == 10


def test_readings_are_counted_by_their_result():
    registry = CollectorRegistry()
    metrics = PolicyMetrics(registry)
    metrics.reloaded(ok=True)
    metrics.reloaded(ok=False)
    metrics.generation.set(4)
    assert values(registry, "qbitel_policy_reloads_total") == {("ok",): 1, ("failed",): 1}
    assert values(registry, "qbitel_policy_generation") == {(): 4}
