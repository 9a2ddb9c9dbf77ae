"""What the connections to one entry share: its endpoints and which of them is next, limits, and what retries may cost.

A group lives as long as its entry's name: a new document changes it, and what is under way stays counted. It is one
worker's, and nothing here waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from mesh.balancing import Algorithm, Balancer, make_balancer
from mesh.balancing import Endpoint as Member
from mesh.circuit_breaker import UNLIMITED, Pool, PoolLimits
from mesh.outliers import Outcome, OutlierDetection, Outliers
from mesh.retry_budget import BudgetConfig, RetryBudget, RetryPolicy
from proxy.peers.entries import Balancing, Ejection, PeerEndpoint, PeerEntry, Retrying
from proxy.peers.metrics import PeerMetrics
from proxy.reasons import Flag, Refused

_ALGORITHMS: Final = {
    Balancing.ROUND_ROBIN: Algorithm.ROUND_ROBIN,
    Balancing.LEAST_CONNECTIONS: Algorithm.LEAST_REQUEST,
    Balancing.LATENCY: Algorithm.PEAK_EWMA,
    Balancing.RANDOM: Algorithm.RANDOM,
}
# How often another endpoint is drawn than the ones that a connection has tried: with n to go and one tried, the chance
# to draw the same one so often is n^-16.
_DRAWS: Final = 16
_PAUSES: Final = RetryPolicy()
# A failure counts as an answer that took so long, or longer if it did: what refuses at once must not look like the
# fastest. It fades in half a minute (mesh/balancing.py).
_FAILURE_SECONDS: Final = 1.0

_log = logging.getLogger("qbitel.proxy")


class Group:
    """The state of one entry."""

    def __init__(
        self, entry: PeerEntry, metrics: PeerMetrics, *, now: Callable[[], float], random: Callable[[], float]
    ) -> None:
        """`now` gives seconds of a monotonic clock, `random` a number from 0.0 up to 1.0."""
        self.entry = entry
        self._metrics = metrics
        self.now = now
        self._random = random
        self._specs: dict[Member, PeerEndpoint] = {}
        self._members: dict[PeerEndpoint, Member] = {}
        # Chosen and not used: the synchronous path chooses, and leaves what is not at hand to the one that can wait.
        self._put_back: list[Member] = []
        self._pool = Pool(_limits(entry))
        self._balancer: Balancer | None = None
        self._outliers: Outliers[Member] | None = None
        self._budget: RetryBudget | None = None
        self._told_ejected = 0
        self._set_up()

    # -- what the document says -------------------------------------------------------------------------------------

    def update(self, entry: PeerEntry) -> None:
        """A new document; connections that are open stay counted."""
        before, self.entry = self.entry, entry
        self._pool.update(_limits(entry))
        if (before.balancing, before.ejection, before.retrying) != (entry.balancing, entry.ejection, entry.retrying):
            self._set_up()
            self._use(self._specs.values())

    def use(self, endpoints: Iterable[PeerEndpoint]) -> None:
        """The destination has these now. Those that stay keep what is known of them."""
        wanted = tuple(endpoints)
        if set(wanted) != set(self._members):
            self._use(wanted)

    def _set_up(self) -> None:
        entry = self.entry
        start = self._random()
        self._balancer = make_balancer(_ALGORITHMS[entry.balancing], start) if entry.balancing else None
        self._outliers = Outliers(_detection(entry.ejection), (), self.now()) if entry.ejection else None
        self._budget = RetryBudget(_budget(entry.retrying)) if entry.retrying else None

    def _use(self, endpoints: Iterable[PeerEndpoint]) -> None:
        known = self._members
        self._members = {spec: known.get(spec) or Member(str(spec), spec.weight) for spec in endpoints}
        self._specs = {member: spec for spec, member in self._members.items()}
        self._put_back = [member for member in self._put_back if member in self._specs]
        if self._outliers is not None:
            self._outliers.update(self._specs)
        self._rebalance()

    def _rebalance(self) -> None:
        if self._balancer is not None:
            available = None if self._outliers is None else self._outliers.available
            self._balancer.update(tuple(self._specs), available)
        self._tell_ejected(0 if self._outliers is None else len(self._outliers.ejected))

    def close(self) -> None:
        """The document has no such entry any more. Connections that are open still leave."""
        self._tell_ejected(0)

    def _tell_ejected(self, count: int) -> None:
        if count != self._told_ejected:
            self._told_ejected = count
            self._metrics.ejected_now(self.entry.name, count)

    # -- for connections --------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Take a place for a connection; raises Refused where there is none. `leave` gives it back."""
        if not self._pool.connections.take():
            raise Refused(
                Flag.CIRCUIT_OPEN,
                "destination_connection_limit",
                f"as many connections to {self.entry.name} are open as {self._from('maxConnections')} allows: "
                f"{self._pool.connections.limit}. Find out why so many stay open, or raise the limit.",
            )
        if self._budget is not None:
            self._budget.request(self.now())

    def leave(self) -> None:
        """A connection is over."""
        self._pool.connections.give()

    def begin_connecting(self) -> None:
        """Take a place among those that wait for a peer; raises Refused. `end_connecting` gives it back."""
        if not self._pool.pending.take():
            raise Refused(
                Flag.CIRCUIT_OPEN,
                "destination_pending_limit",
                f"as many connections to {self.entry.name} wait for it to answer as "
                f"{self._from('maxPending', 'http1MaxPendingRequests')} allows: {self._pool.pending.limit}. It is slow "
                "or gone; or raise the limit.",
            )

    def _from(self, field: str, of_rule: str = "") -> str:
        """Whose word a limit is."""
        if self.entry.rule and field not in self.entry.said:
            return f"{of_rule or field} of {self.entry.rule}"
        return f"{field} of the peers document"

    def end_connecting(self) -> None:
        """It has answered, or has not."""
        self._pool.pending.give()

    def choose(self, tried: Iterable[Member] = ()) -> Member:
        """Where the next connection goes, another than those `tried` if there is one. Raises Refused."""
        if self._put_back and not tried:
            return self._put_back.pop()
        found = None
        for _ in range(_DRAWS if tried else 1):
            found = self._balancer.choose(self._random(), self.now()) if self._balancer else None
            if found is None or found not in tried:
                break
        if found is None:
            raise Refused(
                Flag.CIRCUIT_OPEN,
                "no_endpoint",
                f"{self.entry.name} has no endpoint that can be used: all of the {len(self._specs)} that are known are "
                "left out because they failed. They are tried again soon.",
            )
        return found

    def put_back(self, member: Member) -> None:
        """It was chosen and is not used: it is the next one's."""
        if len(self._put_back) < len(self._specs):
            self._put_back.append(member)

    def spec_of(self, member: Member) -> PeerEndpoint | None:
        """The address of an endpoint; None where a new document has none of that kind any more."""
        return self._specs.get(member)

    def may_retry(self, attempt: int) -> bool:
        """Whether a connection may be tried for the time number `attempt` + 1; if so it is counted."""
        retrying = self.entry.retrying
        if self._budget is None or retrying is None or attempt > retrying.attempts:
            return False
        within = self._budget.retry(self.now())
        self._metrics.retried(self.entry.name, within_budget=within)
        return within

    def pause(self, attempt: int) -> float:
        """Seconds before an endpoint that has just failed is tried again, the time number `attempt` + 1."""
        return _PAUSES.pause(attempt, self._random())

    # -- what comes of them -----------------------------------------------------------------------------------------

    def succeeded(self, member: Member, latency: float) -> None:
        """A connection was made there, in `latency` seconds."""
        member.measured(latency, self.now())
        if self._outliers is not None:
            self._outliers.report(member, Outcome.SUCCESS, self.now())

    def failed(self, member: Member, latency: float, why: str) -> None:
        """None could be made, after `latency` seconds."""
        member.measured(max(latency, _FAILURE_SECONDS), self.now())
        outliers = self._outliers
        if outliers is None or not outliers.report(member, Outcome.LOCAL_FAILURE, self.now()):
            return
        self._rebalance()
        self._metrics.ejected(self.entry.name)
        _log.warning(
            "%s of %s is left out for a while (%d of %d endpoints are): it failed %d times in a row, the last time: %s",
            member.address, self.entry.name, len(outliers.ejected), len(self._specs),
            self.entry.ejection.failures if self.entry.ejection else 0, why,
        )  # fmt: skip

    def tend(self) -> None:
        """To be called every few seconds: endpoints whose time is over come back."""
        outliers = self._outliers
        if outliers is None or not (back := outliers.sweep(self.now())):
            return
        self._rebalance()
        _log.info("%s of %s is used again", ", ".join(member.address for member in back), self.entry.name)

    def describe(self) -> dict[str, Any]:
        """What an operator is shown of it: JSON's types."""
        ejected = frozenset[Member]() if self._outliers is None else self._outliers.ejected
        return {
            "connections": self._pool.connections.taken,
            "pending": self._pool.pending.taken,
            "refused": self._pool.connections.overflows + self._pool.pending.overflows,
            "endpoints": [
                {
                    "address": member.address,
                    "weight": member.weight,
                    "connections": member.active,
                    "latency_ms": round(1000 * member.expected_latency(self.now()), 3),
                    "left_out": member in ejected,
                }
                for member in self._specs
            ],
        }


def _limits(entry: PeerEntry) -> PoolLimits:
    return PoolLimits(
        max_connections=entry.max_connections or UNLIMITED, max_pending_requests=entry.max_pending or UNLIMITED
    )


def _detection(ejection: Ejection) -> OutlierDetection:
    """What fails here is always the making of a connection: nothing is known of answers."""
    return OutlierDetection(
        consecutive_5xx_errors=0,
        consecutive_local_origin_failures=ejection.failures,
        split_external_local_origin_errors=True,
        interval=ejection.interval,
        base_ejection_time=ejection.time,
        max_ejection_percent=ejection.most_percent,
        min_health_percent=ejection.panic_percent,
    )


def _budget(retrying: Retrying) -> BudgetConfig:
    return BudgetConfig(ratio=retrying.ratio, min_per_second=retrying.min_per_second)
