"""What the state machines of mesh/ cost for each decision, and a token for each algorithm, on one core."""

from __future__ import annotations

import gc
import itertools
import platform
import random
import statistics
from collections.abc import Callable

from bench.rounds import ROUNDS, cpu_seconds
from mesh.balancing import Algorithm, Balancer, Endpoint, make_balancer
from mesh.circuit_breaker import BreakerConfig, CircuitBreaker, Slots
from mesh.consistent_hash import ConsistentHash, HashTable, Maglev, RingHash
from mesh.jwks import KeySet, read_key_set
from mesh.jwt import Claims, verify
from mesh.outliers import Outcome, OutlierDetection, Outliers
from mesh.retry_budget import BudgetConfig, RetryBudget
from mesh.token_bucket import RateLimit, TokenBucket, TokenBuckets
from tests.support import tokens

_CALLS = 200_000
_ENDPOINTS = 100
_KEYS = 10_000
_TOKENS = 200
_WIDTH = 52


def main() -> None:
    """Print the table."""
    print(f"Python {platform.python_version()}; CPU of one core, median of {ROUNDS} rounds")
    print(f"\n{'decisions':<{_WIDTH}} {'each':>12} {'a second':>14}")
    _buckets()
    _switches()
    print(f"\n{f'choosing among {_ENDPOINTS} endpoints':<{_WIDTH}} {'each':>12} {'a second':>14}")
    _balancers()
    print(f"\n{f'building for {_ENDPOINTS} endpoints':<{_WIDTH}} {'each':>12} {'a second':>14}")
    _tables()
    print(f"\n{'verifying a token':<{_WIDTH}} {'each':>12} {'a second':>14}")
    _tokens()


def _row(name: str, work: Callable[[], None], calls: int) -> None:
    """One line; the cost of the loop around each call is in it."""
    work()
    gc.disable()
    each = statistics.median(cpu_seconds(work) for _ in range(ROUNDS)) / calls
    gc.enable()
    print(f"{name:<{_WIDTH}} {each * 1e6:>9.2f} µs {1 / each:>14,.0f}")


def _buckets() -> None:
    clock = itertools.count(10**6)
    accepting, refusing = (TokenBucket(RateLimit.per_second(rate, 10)) for rate in (1e6, 0.001))

    def take(bucket: TokenBucket) -> None:
        for tick in itertools.islice(clock, _CALLS):
            bucket.take(tick * 1e-6)

    _row("token bucket, all pass", lambda: take(accepting), _CALLS)
    _row("token bucket, all are refused", lambda: take(refusing), _CALLS)

    known = TokenBuckets[str](RateLimit.per_second(10, 10), _KEYS)
    names = [f"cluster.local/ns/shop/sa/client-{number}" for number in range(2 * _KEYS)]

    def take_keys(count: int) -> None:
        keys = itertools.cycle(names[:count])
        for tick in itertools.islice(clock, _CALLS):
            known.take(next(keys), tick * 1e-6)

    _row(f"a bucket for each of {_KEYS:,} keys", lambda: take_keys(_KEYS), _CALLS)
    _row(f"the same, {2 * _KEYS:,} keys: each one evicts another", lambda: take_keys(2 * _KEYS), _CALLS)


def _switches() -> None:
    breaker, slots, budget = CircuitBreaker(BreakerConfig()), Slots(10), RetryBudget(BudgetConfig())
    outliers = Outliers(OutlierDetection(), range(_ENDPOINTS), 0.0)

    def admit() -> None:
        for _ in range(_CALLS):
            breaker.succeeded(breaker.admit(1.0))

    def occupy() -> None:
        for _ in range(_CALLS):
            slots.take()
            slots.give()

    def retry() -> None:
        for number in range(_CALLS):
            budget.request(number * 1e-5)
            budget.retry(number * 1e-5)

    def report() -> None:
        for number in range(_CALLS):
            outliers.report(number % _ENDPOINTS, Outcome.SUCCESS, 1.0)

    _row("circuit breaker: admitted and reported", admit, _CALLS)
    _row("connection pool: a place taken and given back", occupy, _CALLS)
    _row("retry budget: a request and a retry", retry, _CALLS)
    _row("outlier detection: a report", report, _CALLS)


def _endpoints(weighted: bool) -> list[Endpoint]:
    generator = random.Random(1)
    endpoints = [Endpoint(f"10.0.0.{place}:8080", 1 + place % 7 * weighted) for place in range(_ENDPOINTS)]
    for endpoint in endpoints:
        endpoint.active = generator.randrange(20)
        endpoint.measured(generator.random(), 0.0)
    return endpoints


def _balancers() -> None:
    for algorithm in Algorithm:
        for weighted in (False, True):
            balancer = make_balancer(algorithm)
            balancer.update(_endpoints(weighted))
            _row(f"{algorithm.value}{', weighted' * weighted}", _choices(balancer), _CALLS)
    for table in HashTable:
        balancer = ConsistentHash(table).balancer()
        endpoints = _endpoints(False)
        balancer.update(endpoints)
        _row(f"consistent hash, {table.value}", _choices(balancer), _CALLS)
        balancer.update(endpoints, endpoints[::2])
        _row(f"consistent hash, {table.value}, half are ejected", _choices(balancer), _CALLS)


def _choices(balancer: Balancer) -> Callable[[], None]:
    generator = random.Random(2)
    inputs = [(generator.random(), b"user-%d" % number) for number in range(_CALLS)]

    def choose() -> None:
        for number, key in inputs:
            balancer.choose(number, 1.0, key)

    return choose


def _tables() -> None:
    for name, make in (("ring of 1,024", RingHash), ("Maglev table of 65,537", Maglev)):

        def build(make: type[RingHash] | type[Maglev] = make) -> None:
            make().update(_endpoints(False))

        _row(name, build, 1)


def _tokens() -> None:
    for algorithm in ("RS256", "ES256", "Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"):
        signer = tokens.issuer(algorithm).named("a")
        keys, token = read_key_set(tokens.key_set(signer)), signer.token()

        def judge(token: str = token, keys: KeySet = keys) -> None:
            for _ in range(_TOKENS):
                found = verify(token, keys, tokens.ISSUER, (), tokens.NOW)
            if not isinstance(found, Claims):
                raise TypeError("a good token was refused, which costs less")

        _row(f"{algorithm}, {len(token):,} characters", judge, _TOKENS)
