"""EnvoyFilter: a limit of requests per second at each sidecar of a workload, by a token bucket.

Source: Envoy's LocalRateLimit (envoy.extensions.filters.http.local_ratelimit.v3) and type.v3.TokenBucket.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from mesh.building import checks
from mesh.building.durations import seconds
from mesh.building.metadata import NETWORKING_ALPHA, resource

FILTER: Final = "envoy.filters.http.local_ratelimit"
FILTER_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
# Istio's analysis (IST0151) wants one wherever a patch says "before"; it is the same for all of ours.
PRIORITY: Final = 10
_SECOND: Final = 1_000_000_000
_SHORTEST_FILL: Final = _SECOND // 20  # Envoy refuses to fill a bucket more often than each 50 ms
# A bucket is filled at least this often where that is exact: who asks for 100.5/s does not mean 201 at once each 2 min.
_LONGEST_EXACT_FILL: Final = 60 * _SECOND
SLOWEST: Final = Fraction(1, 86400)  # one a day


@dataclass(frozen=True, slots=True)
class Bucket:
    """Envoy's TokenBucket: at most `max_tokens`, and `tokens_per_fill` more each `fill_interval` nanoseconds."""

    max_tokens: int
    tokens_per_fill: int
    fill_interval: int

    @property
    def rate(self) -> Fraction:
        """Tokens per second in the long run."""
        return Fraction(self.tokens_per_fill * _SECOND, self.fill_interval)

    def as_dict(self) -> dict[str, Any]:
        return {
            "max_tokens": self.max_tokens,
            "tokens_per_fill": self.tokens_per_fill,
            "fill_interval": seconds(Fraction(self.fill_interval)),
        }


def local_rate_limit(
    name: str,
    namespace: str,
    selector: Mapping[str, str],
    requests_per_second: float | Fraction | Decimal,
    burst: int | None = None,
    *,
    port: int | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return an EnvoyFilter that limits the requests which each sidecar of the selected workloads lets in.

    A request takes a token of a bucket that holds `burst` of them (1 to 2^32 - 1; by default those of one second) and
    is refilled with `requests_per_second`, one a day at the least; where there is none, it is answered with 429. Each
    sidecar has its own bucket: three replicas let in three times as much. The limit stands behind authentication
    and authorization, so that who is not allowed does not use up tokens of those who are. With `port`, only requests to
    that port of the workload count, in a bucket of their own.
    """
    rate = checked_rate("requests_per_second", requests_per_second)
    if burst is None:
        burst = max(1, math.ceil(rate))
    bucket = token_bucket(rate, checks.whole_number("burst", burst, 1, checks.MAX_UINT32))
    listener: dict[str, Any] = {"portNumber": checks.port("port", port)} if port is not None else {}
    listener["filterChain"] = {
        "filter": {
            "name": "envoy.filters.network.http_connection_manager",
            "subFilter": {"name": "envoy.filters.http.router"},
        }
    }
    patch = {
        "applyTo": "HTTP_FILTER",
        "match": {"context": "SIDECAR_INBOUND", "listener": listener},
        "patch": {"operation": "INSERT_BEFORE", "value": _filter(bucket)},
    }
    spec = {
        "workloadSelector": {"labels": dict(sorted(checks.label_set("selector", selector, fewest=1).items()))},
        "priority": PRIORITY,
        "configPatches": [patch],
    }
    return resource(NETWORKING_ALPHA, "EnvoyFilter", name, namespace, spec, labels=labels, annotations=annotations)


def checked_rate(argument: str, value: object) -> Fraction:
    """A rate per second, from one a day to 2^32 - 1, exactly.

    A float stands for the fraction of a day's seconds that it is closest to (1/3600 is one an hour), and else for its
    shortest decimal form.
    """
    if isinstance(value, int | float | Fraction | Decimal) and not isinstance(value, bool) and math.isfinite(value):
        rate = _exact(value) if isinstance(value, float) else Fraction(value)
        if SLOWEST <= rate <= checks.MAX_UINT32:
            return rate
    raise checks.refused(
        argument, value, f"a number of requests per second, more than 0: from 1/86400 to {checks.MAX_UINT32}"
    )


def _exact(value: float) -> Fraction:
    near = Fraction(value).limit_denominator(int(1 / SLOWEST))
    return near if float(near) == value else Fraction(repr(value))


def token_bucket(rate: Fraction, burst: int) -> Bucket:
    """The bucket that gives exactly `rate` where Envoy's numbers can say it, and else at most 1 ppm less.

    A whole rate is filled each second, which is what people expect to read. ValueError where the burst is so small
    that Envoy could not fill the bucket as often as that takes.
    """
    if rate.denominator == 1 and rate <= burst:
        return Bucket(burst, int(rate), _SECOND)
    # Multiples of this many tokens take a whole number of nanoseconds.
    exact = rate.numerator // math.gcd(rate.numerator, rate.denominator * _SECOND)
    tokens = exact * max(1, math.ceil(rate * _SHORTEST_FILL / _SECOND / exact))
    if tokens > burst or tokens * _SECOND / rate > _LONGEST_EXACT_FILL:
        tokens = min(burst, max(1, math.ceil(rate)))
    interval = math.ceil(tokens * _SECOND / rate)
    if interval < _SHORTEST_FILL:
        needed = math.ceil(rate * _SHORTEST_FILL / _SECOND)
        raise ValueError(
            f"burst: {burst} is too few for this rate; give at least {needed}, which is what comes in 50 ms, the "
            "shortest time in which Envoy refills"
        )
    return Bucket(burst, tokens, interval)


def _filter(bucket: Bucket) -> dict[str, Any]:
    return {
        "name": FILTER,
        "typed_config": {
            "@type": FILTER_TYPE,
            "stat_prefix": "http_local_rate_limiter",
            "token_bucket": bucket.as_dict(),
            "filter_enabled": _always("local_rate_limit_enabled"),
            "filter_enforced": _always("local_rate_limit_enforced"),
        },
    }


def _always(runtime_key: str) -> dict[str, Any]:
    """Envoy's default is never."""
    return {"runtime_key": runtime_key, "default_value": {"numerator": 100, "denominator": "HUNDRED"}}
