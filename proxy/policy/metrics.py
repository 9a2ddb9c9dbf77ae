"""What policy decides, counted. Labels are names of policies, which operators choose, and capped all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from mesh.decision import Decision

# Policies with a label of their own in one process. Those beyond are counted together: names come and go for weeks.
MAX_POLICIES: Final = 256
# The same for the addresses that plaintext comes from.
MAX_SOURCES: Final = 256
OTHER: Final = "other"
_NOBODY: Final = "-"  # no policy matched


class PolicyMetrics:
    """The counters of one process, in its `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(
            "qbitel_policy_decisions",
            "Connections that policies decided: allow, deny; audit, dry_run_allow, dry_run_deny count beside them.",
            ("decision", "policy"),
            registry=registry,
        )
        self._reloads = Counter(
            "qbitel_policy_reloads", "Readings of the policies' folder: ok or failed.", ("result",), registry=registry
        )
        self.generation = Gauge(
            "qbitel_policy_generation",
            "How often the policies in force were replaced; 0 while none could be read. Of several workers, the least.",
            registry=registry,
            multiprocess_mode="min",
        )
        self._plaintext = Counter(
            "qbitel_plaintext_peer_connections",
            "Inbound connections without TLS of the mesh, by the address that they came from.",
            ("source",),
            registry=registry,
        )
        self._children: dict[tuple[str, str | None], Counter] = {}
        self._policies: set[str] = set()
        self._sources: set[str] = set()

    def decided(self, decision: Decision) -> None:
        """One connection was decided about."""
        self._count("allow" if decision.allowed else "deny", decision.policy)
        if decision.dry_run is not None:
            self._count("dry_run_allow" if decision.dry_run.allowed else "dry_run_deny", decision.dry_run.policy)
        for policy in decision.audited:
            self._count("audit", policy)

    def reloaded(self, *, ok: bool) -> None:
        """The folder was read, or could not be."""
        self._reloads.labels("ok" if ok else "failed").inc()

    def plaintext(self, source: str) -> None:
        """One connection came in without TLS of the mesh."""
        self._plaintext.labels(_capped(source, self._sources, MAX_SOURCES)).inc()

    def _count(self, word: str, policy: str | None) -> None:
        child = self._children.get((word, policy))
        if child is None:
            name = _NOBODY if policy is None else _capped(policy, self._policies, MAX_POLICIES)
            child = self._decisions.labels(word, name)
            if len(self._children) < 8 * MAX_POLICIES:
                self._children[word, policy] = child
        child.inc()


def _capped(name: str, known: set[str], most: int) -> str:
    """`name`, as long as there are not more than `most` of them."""
    if name in known:
        return name
    if len(known) >= most:
        return OTHER
    known.add(name)
    return name
