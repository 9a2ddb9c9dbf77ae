"""From what a resource says to the state machine that does it: Istio's defaults filled in, values brought into bounds.

DestinationRule, VirtualService and EnvoyFilter are values of what was written (mesh/traffic.py, mesh/routes.py,
mesh/local_rate_limit.py); the machines know nothing of resources.
"""

from __future__ import annotations

from typing import Final

from mesh.balancing import Algorithm, Balancer, make_balancer
from mesh.circuit_breaker import UNLIMITED, PoolLimits
from mesh.consistent_hash import LARGEST_RING, ConsistentHash, HashTable
from mesh.local_rate_limit import LocalRateLimit
from mesh.outliers import OutlierDetection
from mesh.retry_budget import ConcurrencyBudget, RetryPolicy, is_condition
from mesh.routes import Retries
from mesh.token_bucket import NANOSECONDS, RateLimit
from mesh.traffic import ConnectionPool, LoadBalancer, RetryBudget
from mesh.traffic import OutlierDetection as OutlierRule

_ALGORITHMS: Final = {
    "UNSPECIFIED": Algorithm.LEAST_REQUEST,
    "LEAST_CONN": Algorithm.LEAST_REQUEST,
    "LEAST_REQUEST": Algorithm.LEAST_REQUEST,
    "ROUND_ROBIN": Algorithm.ROUND_ROBIN,
    "RANDOM": Algorithm.RANDOM,
}
_PASSTHROUGH: Final = "PASSTHROUGH"


def rate_limit(rule: LocalRateLimit) -> RateLimit:
    """The bucket of a local rate limit."""
    return RateLimit(rule.max_tokens, rule.tokens_per_fill, round(rule.fill_interval * NANOSECONDS))


def pool_limits(pool: ConnectionPool | None) -> PoolLimits:
    """The limits of a connectionPool; what it leaves out, or sets to 0, is not limited, as in Istio."""
    if pool is None:
        return PoolLimits()
    return PoolLimits(
        max_connections=pool.max_connections or UNLIMITED,
        max_pending_requests=pool.http1_max_pending_requests or UNLIMITED,
        max_requests=pool.http2_max_requests or UNLIMITED,
        max_retries=pool.max_retries or UNLIMITED,
        max_requests_per_connection=pool.max_requests_per_connection or 0,
    )


def outlier_detection(rule: OutlierRule | None) -> OutlierDetection | None:
    """When endpoints are ejected; None: never, which is what Istio does without outlierDetection."""
    if rule is None:
        return None
    default = OutlierDetection()
    return OutlierDetection(
        consecutive_5xx_errors=_or(rule.consecutive_5xx_errors, default.consecutive_5xx_errors),
        consecutive_gateway_errors=_or(rule.consecutive_gateway_errors, default.consecutive_gateway_errors),
        consecutive_local_origin_failures=_or(
            rule.consecutive_local_origin_failures, default.consecutive_local_origin_failures
        ),
        split_external_local_origin_errors=rule.split_external_local_origin_errors,
        interval=rule.interval,
        base_ejection_time=rule.base_ejection_time,
        # Istio does not tell 0 from nothing said here.
        max_ejection_percent=rule.max_ejection_percent or default.max_ejection_percent,
        min_health_percent=rule.min_health_percent,
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def balancer(rule: LoadBalancer | None, start: float = 0.0) -> Balancer | None:
    """The balancer of a loadBalancer, with no endpoints yet; None for PASSTHROUGH: what was dialled is connected to.

    `start` as in make_balancer. Raises ValueError for a Maglev table whose size is no prime, which Envoy refuses too.
    """
    if rule is None:
        return make_balancer(Algorithm.LEAST_REQUEST, start)
    by_hash = rule.consistent_hash
    if by_hash is not None:
        if by_hash.maglev_table_size is not None:
            return ConsistentHash(HashTable.MAGLEV, by_hash.maglev_table_size).balancer()
        # Envoy takes rings of up to 8 Mi points. One that is larger than ours is evener by nothing to speak of.
        return ConsistentHash(HashTable.RING, min(by_hash.ring_size, LARGEST_RING)).balancer()
    if rule.simple == _PASSTHROUGH:
        return None
    return make_balancer(_ALGORITHMS[rule.simple], start)


def retry_policy(rule: Retries | None) -> RetryPolicy:
    """The policy of a route's retries; without them Istio's default, two more attempts where nothing was done yet."""
    default = RetryPolicy()
    if rule is None:
        return default
    base = default.base_interval if rule.backoff is None else rule.backoff
    return RetryPolicy(
        attempts=rule.attempts,
        per_try_timeout=rule.per_try_timeout or None,
        # Envoy ignores words that it does not know.
        retry_on=frozenset(filter(is_condition, rule.retry_on)) if rule.retry_on else default.retry_on,
        base_interval=base,
        max_interval=10 * base,  # Envoy's default
    )


def retry_budget(rule: RetryBudget | None) -> ConcurrencyBudget | None:
    """The budget of a DestinationRule; None: connectionPool's maxRetries alone holds."""
    return None if rule is None else ConcurrencyBudget(rule.percent, rule.min_retry_concurrency)
