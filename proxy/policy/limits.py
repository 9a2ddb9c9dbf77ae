"""How many connections a source may open and hold, and how many the workload takes in all: counted per process.

Whoever has shown an identity is that identity, wherever it comes from; others are their address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from mesh.token_bucket import RateLimit, TokenBucket, TokenBuckets
from proxy.policy.config import PolicyConfig
from proxy.reasons import Flag, Refused

if TYPE_CHECKING:  # whoever limits by flags alone does without a reader of YAML
    from proxy.policy.inbound_limits import WorkloadConnections, WorkloadRate

# Sources that have a bucket of their own at one time: some 3 MB. More of them do not loosen the limit (TokenBuckets).
_SOURCES: Final = 10_000

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Place:
    """What an open connection holds, to be given back once."""

    source: str
    port: int


class ConnectionLimits:
    """Takes a place for each connection, or refuses it. What is open is never cut off by a lower limit."""

    def __init__(self, config: PolicyConfig) -> None:
        self._rate = config.connection_rate
        self._most_of_one = config.max_connections_per_peer
        self._buckets: TokenBuckets[str] | None = None
        if config.connection_rate is not None:
            burst = config.connection_burst or max(1, round(config.connection_rate))
            self._buckets = TokenBuckets(RateLimit.per_second(config.connection_rate, burst), _SOURCES)
        self._by_source: dict[str, int] = {}
        self._by_port: dict[int, int] = {}
        self._rates: dict[WorkloadRate, TokenBucket] = {}
        self._connections: tuple[WorkloadConnections, ...] = ()

    def update(self, rates: tuple[WorkloadRate, ...], connections: tuple[WorkloadConnections, ...]) -> None:
        """Take up what the policies say now. A bucket whose limit stays keeps what is in it: a reload is no refill."""
        self._rates = {rate: self._rates.get(rate) or TokenBucket(rate.limit) for rate in rates}
        self._connections = connections

    def enter(self, source: str, port: int, now: float) -> Place:
        """A place for a connection of `source` to `port`; raises Refused where there is none. `now` is monotonic."""
        self._check_open(source, port)
        if self._buckets is not None and not self._buckets.take(source, now):
            raise Refused(
                Flag.RATE_LIMITED,
                "rate_limited",
                f"{source} opens more than {self._rate:g} connections per second (--connection-rate). "
                "Let it keep its connections open, or raise the rate.",
            )
        for rate, bucket in self._rates.items():
            if rate.port in (None, port) and not bucket.take(now):
                raise Refused(
                    Flag.RATE_LIMITED,
                    "rate_limited",
                    f"more connections come to this workload than {rate.name} allows. Raise its limit, or add pods.",
                )
        self._by_source[source] = self._by_source.get(source, 0) + 1
        self._by_port[port] = self._by_port.get(port, 0) + 1
        return Place(source, port)

    def leave(self, place: Place) -> None:
        """The connection is over."""
        _take_one(self._by_source, place.source)
        _take_one(self._by_port, place.port)

    def _check_open(self, source: str, port: int) -> None:
        most = self._most_of_one
        if most is not None and self._by_source.get(source, 0) >= most:
            raise Refused(
                Flag.CIRCUIT_OPEN,
                "peer_connection_limit",
                f"{source} has {most} connections open, as many as --max-connections-per-peer allows. "
                "Find out why it keeps so many, or raise the limit.",
            )
        for limit in self._connections:
            if limit.port in (None, port) and self._by_port.get(port, 0) >= limit.most:
                raise Refused(
                    Flag.CIRCUIT_OPEN,
                    "workload_connection_limit",
                    f"{limit.most} connections to port {port} are open, as many as maxConnections of {limit.name} "
                    "allows. Raise it, or add pods.",
                )


def _take_one(counts: dict[Key, int], key: Key) -> None:
    """One less; who has none is forgotten, so that strangers cannot make the table grow."""
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]
