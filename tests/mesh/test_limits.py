"""From resources to machines: what Istio does with what is left out, and nothing that a resource says is lost."""

from __future__ import annotations

import pytest

from mesh.balancing import LeastRequest, RoundRobin, WeightedRandom
from mesh.circuit_breaker import UNLIMITED, PoolLimits
from mesh.consistent_hash import LARGEST_RING, Maglev, RingHash
from mesh.limits import balancer, outlier_detection, pool_limits, rate_limit, retry_budget, retry_policy
from mesh.local_rate_limit import LocalRateLimit
from mesh.metadata import Metadata
from mesh.outliers import OutlierDetection
from mesh.retry_budget import DEFAULT_CONDITIONS, ConcurrencyBudget, RetryPolicy
from mesh.routes import Retries
from mesh.selectors import Selector
from mesh.token_bucket import NANOSECONDS, RateLimit, TokenBucket
from mesh.traffic import ConnectionPool, ConsistentHash, LoadBalancer, RetryBudget
from mesh.traffic import OutlierDetection as OutlierRule


def limit(fill_interval: float) -> LocalRateLimit:
    return LocalRateLimit(Metadata("EnvoyFilter", "shop", "limit"), Selector({}), 10, 5, fill_interval)


class TestRateLimits:
    @pytest.mark.parametrize(
        ("interval", "nanoseconds"), [(1.0, NANOSECONDS), (0.05, 50_000_000), (3600.0, 3600 * NANOSECONDS)]
    )
    def test_a_bucket_is_the_one_that_was_written(self, interval: float, nanoseconds: int) -> None:
        assert rate_limit(limit(interval)) == RateLimit(10, 5, nanoseconds)

    def test_it_works(self) -> None:
        bucket = TokenBucket(rate_limit(limit(1.0)))

        assert sum(bucket.take(0.0) for _ in range(20)) == 10
        assert sum(bucket.take(1.0) for _ in range(20)) == 5


class TestPools:
    def test_without_a_pool_nothing_is_limited(self) -> None:
        assert pool_limits(None) == pool_limits(ConnectionPool()) == PoolLimits()

    def test_every_limit_is_taken_over(self) -> None:
        pool = ConnectionPool(
            max_connections=1,
            http1_max_pending_requests=2,
            http2_max_requests=3,
            max_requests_per_connection=4,
            max_retries=5,
        )

        assert pool_limits(pool) == PoolLimits(1, 2, 3, 5, 4)

    def test_zero_is_no_limit_as_in_istio(self) -> None:
        assert pool_limits(ConnectionPool(max_connections=0, max_retries=0)).max_connections == UNLIMITED


class TestOutliers:
    def test_without_a_rule_nobody_is_ejected(self) -> None:
        assert outlier_detection(None) is None

    def test_an_empty_rule_is_istio_s_default(self) -> None:
        assert outlier_detection(OutlierRule()) == OutlierDetection()

    def test_every_field_is_taken_over(self) -> None:
        rule = OutlierRule(1, 2, 3, split_external_local_origin_errors=True, interval=4, base_ejection_time=5)

        assert outlier_detection(rule) == OutlierDetection(1, 2, 3, True, 4, 5)
        assert outlier_detection(OutlierRule(max_ejection_percent=50, min_health_percent=60)) == OutlierDetection(
            max_ejection_percent=50, min_health_percent=60
        )

    def test_zero_turns_a_count_off_but_a_share_of_zero_is_nothing_said(self) -> None:
        found = outlier_detection(OutlierRule(consecutive_5xx_errors=0, max_ejection_percent=0))

        assert found is not None
        assert (found.consecutive_5xx_errors, found.max_ejection_percent) == (0, 10)


class TestBalancers:
    @pytest.mark.parametrize(
        ("simple", "kind"),
        [
            ("UNSPECIFIED", LeastRequest),
            ("LEAST_CONN", LeastRequest),
            ("LEAST_REQUEST", LeastRequest),
            ("RANDOM", WeightedRandom),
            ("ROUND_ROBIN", RoundRobin),
        ],
    )
    def test_each_name_has_its_algorithm(self, simple: str, kind: type) -> None:
        assert isinstance(balancer(LoadBalancer(simple)), kind)

    def test_without_a_word_it_is_least_request(self) -> None:
        assert isinstance(balancer(None), LeastRequest)

    def test_passthrough_balances_nothing(self) -> None:
        assert balancer(LoadBalancer("PASSTHROUGH")) is None

    def test_a_consistent_hash_is_a_ring_or_maglev(self) -> None:
        assert isinstance(balancer(LoadBalancer(consistent_hash=ConsistentHash(use_source_ip=True))), RingHash)
        assert isinstance(balancer(LoadBalancer(consistent_hash=ConsistentHash(maglev_table_size=1009))), Maglev)

    def test_a_ring_that_is_larger_than_ours_is_ours_at_most(self) -> None:
        assert isinstance(
            balancer(LoadBalancer(consistent_hash=ConsistentHash(ring_size=8 * LARGEST_RING))),
            RingHash,
        )

    def test_a_table_that_envoy_would_refuse_is_refused(self) -> None:
        with pytest.raises(ValueError, match="tableSize is 1000"):
            balancer(LoadBalancer(consistent_hash=ConsistentHash(maglev_table_size=1000)))


class TestRetries:
    def test_without_a_word_istio_s_default_holds(self) -> None:
        assert retry_policy(None) == RetryPolicy(attempts=2, retry_on=DEFAULT_CONDITIONS)

    def test_every_field_is_taken_over(self) -> None:
        policy = retry_policy(Retries(3, 1.5, ("5xx", "503", "sometimes"), 0.1))

        assert policy == RetryPolicy(3, 1.5, frozenset({"5xx", "503"}), 0.1, 1.0)

    def test_no_reasons_are_the_default_ones_and_no_time_is_none(self) -> None:
        assert retry_policy(Retries(1, 0.0)) == RetryPolicy(attempts=1)

    def test_a_budget_is_taken_over(self) -> None:
        assert retry_budget(None) is None
        assert retry_budget(RetryBudget(10.0, 1)) == ConcurrencyBudget(10.0, 1)
