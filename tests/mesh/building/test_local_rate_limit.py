"""The local rate limit, and the arithmetic of its bucket."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.building.local_rate_limit import SLOWEST, Bucket, checked_rate, local_rate_limit, token_bucket
from mesh.documents import Document
from mesh.resources import ResourceSet
from tests.mesh.building.strategies import RATES
from tests.support.built import assert_good


def bucket_of(resource: dict[str, Any]) -> dict[str, Any]:
    value = resource["spec"]["configPatches"][0]["patch"]["value"]
    bucket: dict[str, Any] = value["typed_config"]["token_bucket"]
    return bucket


def test_a_limit_is_envoy_s_filter_behind_authorization() -> None:
    made = local_rate_limit("api", "shop", {"app": "api"}, 1000, 2000)

    assert made == {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "api", "namespace": "shop"},
        "spec": {
            "workloadSelector": {"labels": {"app": "api"}},
            "priority": 10,
            "configPatches": [
                {
                    "applyTo": "HTTP_FILTER",
                    "match": {
                        "context": "SIDECAR_INBOUND",
                        "listener": {
                            "filterChain": {
                                "filter": {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "subFilter": {"name": "envoy.filters.http.router"},
                                }
                            }
                        },
                    },
                    "patch": {
                        "operation": "INSERT_BEFORE",
                        "value": {
                            "name": "envoy.filters.http.local_ratelimit",
                            "typed_config": {
                                "@type": "type.googleapis.com/"
                                "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                                "stat_prefix": "http_local_rate_limiter",
                                "token_bucket": {"max_tokens": 2000, "tokens_per_fill": 1000, "fill_interval": "1s"},
                                "filter_enabled": {
                                    "runtime_key": "local_rate_limit_enabled",
                                    "default_value": {"numerator": 100, "denominator": "HUNDRED"},
                                },
                                "filter_enforced": {
                                    "runtime_key": "local_rate_limit_enforced",
                                    "default_value": {"numerator": 100, "denominator": "HUNDRED"},
                                },
                            },
                        },
                    },
                }
            ],
        },
    }
    assert_good(made)


def test_a_limit_may_be_of_one_port() -> None:
    made = local_rate_limit("api", "shop", {"app": "api"}, 10, port=8080)

    assert made["spec"]["configPatches"][0]["match"]["listener"]["portNumber"] == 8080


@pytest.mark.parametrize(
    ("rate", "burst", "bucket"),
    [
        (100, None, (100, 100, "1s")),
        (0.5, None, (1, 1, "2s")),
        (2.5, None, (3, 1, "0.4s")),
        (100.5, None, (101, 101, "1.004975125s")),  # exactly: 201 each 2 s, more than fit into the bucket
        (100.5, 300, (300, 201, "2s")),
        (1 / 3600, None, (1, 1, "3600s")),
        (Fraction(1, 86400), None, (1, 1, "86400s")),
        (Decimal("0.1"), 5, (5, 1, "10s")),
        (0.3333, None, (1, 1, "3.000300031s")),  # exactly: 3333 at once each 10000 s, which nobody means
        (1000, 50, (50, 50, "0.05s")),
        (1000, 999, (999, 50, "0.05s")),
        (4294967295, 4294967295, (4294967295, 4294967295, "1s")),
    ],
)
def test_the_bucket_says_the_rate_in_envoy_s_numbers(
    rate: Any, burst: int | None, bucket: tuple[int, int, str]
) -> None:
    made = bucket_of(local_rate_limit("api", "shop", {"app": "api"}, rate, burst))

    assert (made["max_tokens"], made["tokens_per_fill"], made["fill_interval"]) == bucket


@given(RATES.map(lambda rate: checked_rate("rate", rate)), st.integers(1, 10**7))
def test_a_bucket_never_gives_more_than_was_asked_for_nor_a_millionth_less(rate: Fraction, burst: int) -> None:
    try:
        bucket = token_bucket(rate, burst)
    except ValueError:
        assert burst < math.ceil(rate / 20)
        return

    assert rate * (1 - Fraction(1, 10**6)) <= bucket.rate <= rate
    assert 1 <= bucket.tokens_per_fill <= bucket.max_tokens == burst
    assert bucket.fill_interval >= 50_000_000


@given(st.integers(1, 10**6))
def test_a_rate_with_one_decimal_place_is_exact_where_the_bucket_holds_ten_seconds_of_it(tenths: int) -> None:
    assert token_bucket(Fraction(tenths, 10), max(tenths, 1)).rate == Fraction(tenths, 10)


@given(RATES, st.none() | st.integers(1, 65535))
def test_a_sidecar_of_ours_reads_the_same_bucket(rate: Any, port: int | None) -> None:
    made = local_rate_limit("api", "shop", {"app": "api"}, rate, port=port)
    (read,) = ResourceSet.of([Document(made, "here", {})]).local_rate_limits
    bucket = token_bucket(checked_rate("rate", rate), read.max_tokens)

    assert (read.max_tokens, read.tokens_per_fill, read.port) == (bucket.max_tokens, bucket.tokens_per_fill, port)
    assert read.fill_interval == pytest.approx(bucket.fill_interval / 1e9, rel=1e-12)


@pytest.mark.parametrize("rate", [1, 10, 1000, 12345])
def test_a_whole_rate_is_refilled_each_second(rate: int) -> None:
    assert token_bucket(Fraction(rate), rate) == Bucket(rate, rate, 1_000_000_000)


@pytest.mark.parametrize(
    "rate",
    [0, -1, -0.5, float("nan"), float("inf"), "100", None, True, 4294967296, 1e-6, Fraction(1, 86401), Decimal("NaN")],
)
def test_a_rate_that_cannot_be_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match=r"^requests_per_second: .* more than 0"):
        local_rate_limit("api", "shop", {"app": "api"}, rate)


@pytest.mark.parametrize("burst", [0, -1, 1.5, "10", True, 2**32])
def test_a_burst_that_cannot_be_is_refused(burst: Any) -> None:
    with pytest.raises(ValueError, match=r"^burst: "):
        local_rate_limit("api", "shop", {"app": "api"}, 10, burst)


def test_a_burst_that_envoy_could_not_refill_in_time_is_refused_with_the_least_that_works() -> None:
    with pytest.raises(ValueError, match=r"^burst: 49 is too few for this rate; give at least 50"):
        local_rate_limit("api", "shop", {"app": "api"}, 1000, 49)

    local_rate_limit("api", "shop", {"app": "api"}, 1000, 50)


@pytest.mark.parametrize("selector", [None, {}, {"app": "*"}])
def test_a_limit_without_pods_is_refused(selector: Any) -> None:
    with pytest.raises(ValueError, match=r"^selector"):
        local_rate_limit("api", "shop", selector, 10)


def test_a_float_stands_for_the_fraction_that_people_mean_by_it() -> None:
    assert checked_rate("rate", 1 / 3600) == Fraction(1, 3600)
    assert checked_rate("rate", 1 / 86400) == SLOWEST
    assert checked_rate("rate", 0.1) == Fraction(1, 10)
    assert checked_rate("rate", 1e6) == 10**6
