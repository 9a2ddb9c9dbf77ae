"""The parts of a DestinationRule's trafficPolicy: connection pool, outlier detection, load balancer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mesh.building import checks
from mesh.building.client_tls import ClientTls, mesh_tls
from mesh.building.durations import duration
from mesh.building.parts import Part, part
from mesh.consistent_hash import is_prime

ALGORITHMS: Final = ("ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH")
_LARGEST_RING: Final = 1 << 23  # Envoy's limit
_LARGEST_MAGLEV_TABLE: Final = 5_000_010  # Istio's; Envoy wants a prime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPool(Part):
    """The limits at which a caller's sidecar stops trying, for each destination host.

    Counts are whole numbers from 1 to 2^31 - 1 (`max_requests_per_connection` and `max_retries` also 0: no limit, no
    retry), timeouts are seconds or text as in "1.5s"; what is None keeps Istio's default. `tcp_idle_timeout` may be 0:
    none. Raises ValueError, which names the argument.
    """

    max_connections: int | None = None
    connect_timeout: str | float | None = None
    tcp_idle_timeout: str | float | None = None
    max_connection_duration: str | float | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    http_idle_timeout: str | float | None = None

    def _build(self) -> dict[str, Any]:
        tcp = _given(
            maxConnections=_count("max_connections", self.max_connections),
            connectTimeout=_time("connect_timeout", self.connect_timeout),
            idleTimeout=_time("tcp_idle_timeout", self.tcp_idle_timeout, zero=True),
            maxConnectionDuration=_time("max_connection_duration", self.max_connection_duration),
        )
        http = _given(
            http1MaxPendingRequests=_count("max_pending_requests", self.max_pending_requests),
            http2MaxRequests=_count("max_requests", self.max_requests),
            maxRequestsPerConnection=_count("max_requests_per_connection", self.max_requests_per_connection, 0),
            maxRetries=_count("max_retries", self.max_retries, 0),
            idleTimeout=_time("http_idle_timeout", self.http_idle_timeout),
        )
        return _given(tcp=tcp or None, http=http or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection(Part):
    """When an endpoint that fails is left out, and for how long.

    Numbers of errors are from 0 (never for this reason) to 2^32 - 1, percentages whole numbers from 0 to 100, times
    seconds or text as in "30s". `consecutive_local_origin_failures` counts connections that could not be made, and
    makes Istio tell them from what the endpoint answered. Raises ValueError, which names the argument.
    """

    consecutive_5xx_errors: int | None = None
    consecutive_gateway_errors: int | None = None
    consecutive_local_origin_failures: int | None = None
    interval: str | float | None = None
    base_ejection_time: str | float | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None

    def _build(self) -> dict[str, Any]:
        most = checks.MAX_UINT32
        local = _count("consecutive_local_origin_failures", self.consecutive_local_origin_failures, 0, most)
        return _given(
            # Without it Istio refuses a number of local failures.
            splitExternalLocalOriginErrors=None if local is None else True,
            consecutive5xxErrors=_count("consecutive_5xx_errors", self.consecutive_5xx_errors, 0, most),
            consecutiveGatewayErrors=_count("consecutive_gateway_errors", self.consecutive_gateway_errors, 0, most),
            consecutiveLocalOriginFailures=local,
            interval=_time("interval", self.interval),
            baseEjectionTime=_time("base_ejection_time", self.base_ejection_time),
            maxEjectionPercent=_count("max_ejection_percent", self.max_ejection_percent, 0, 100),
            minHealthPercent=_count("min_health_percent", self.min_health_percent, 0, 100),
        )


@dataclass(frozen=True, slots=True)
class LoadBalancer(Part):
    """Which endpoint is taken: by an algorithm, or by a consistent hash.

    `algorithm` is ROUND_ROBIN, LEAST_REQUEST, RANDOM or PASSTHROUGH. A consistent hash is taken of exactly one of a
    request's header, query parameter or cookie, or of the source address. `hash_cookie_ttl` lets the sidecar set the
    cookie where there is none (0: until the browser ends). `ring_size` (1 to 2^23) or `maglev_table_size` (a prime
    below 5000011) says how the hash is kept. `warmup` is the time over which a new endpoint gets its full share.
    Raises ValueError, which names the argument.
    """

    algorithm: str | None = None
    hash_header: str | None = None
    hash_query_parameter: str | None = None
    hash_source_ip: bool = False
    hash_cookie: str | None = None
    hash_cookie_ttl: str | float | None = None
    ring_size: int | None = None
    maglev_table_size: int | None = None
    warmup: str | float | None = None

    def _build(self) -> dict[str, Any]:
        key, keeping = self._hash_key(), self._hash_keeping()
        if keeping and not key:
            raise ValueError("ring_size, maglev_table_size: there is no hash to keep; give hash_header or the like")
        if key and self.algorithm is not None:
            raise ValueError("algorithm: a consistent hash is given too; give one of them")
        warmup = _time("warmup", self.warmup)
        return _given(
            simple=None if self.algorithm is None else checks.choice("algorithm", self.algorithm, ALGORITHMS),
            consistentHash={**key, **keeping} or None,
            warmup=None if warmup is None else {"duration": warmup},
        )

    def _hash_key(self) -> dict[str, Any]:
        found = _given(
            httpHeaderName=_checked(checks.token, "hash_header", self.hash_header),
            httpQueryParameterName=_checked(checks.text, "hash_query_parameter", self.hash_query_parameter),
            useSourceIp=checks.flag("hash_source_ip", self.hash_source_ip) or None,
            httpCookie=None if self.hash_cookie is None else {"name": checks.token("hash_cookie", self.hash_cookie)},
        )
        if len(found) > 1:
            raise ValueError(
                "hash_header, hash_query_parameter, hash_source_ip, hash_cookie: a hash is of one thing; give one"
            )
        if self.hash_cookie_ttl is not None:
            if "httpCookie" not in found:
                raise ValueError("hash_cookie_ttl: there is no cookie; give hash_cookie too")
            found["httpCookie"]["ttl"] = duration("hash_cookie_ttl", self.hash_cookie_ttl, zero=True)
        return found

    def _hash_keeping(self) -> dict[str, Any]:
        ring = _count("ring_size", self.ring_size, 1, _LARGEST_RING)
        if self.maglev_table_size is None:
            return {} if ring is None else {"ringHash": {"minimumRingSize": ring}}
        if ring is not None:
            raise ValueError("ring_size, maglev_table_size: a hash is kept in one of the two ways; give one")
        return {"maglev": {"tableSize": _prime("maglev_table_size", self.maglev_table_size)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficPolicy(Part):
    """How a host, one of its ports or one of its subsets is dialled. Where nothing is given nothing is said.

    `tls` is ISTIO_MUTUAL or DISABLE within the mesh, or a ClientTls for a server outside of it. Raises ValueError,
    which names the argument.
    """

    tls: str | ClientTls | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    load_balancer: LoadBalancer | None = None

    def _build(self) -> dict[str, Any]:
        found = {
            "connectionPool": _part("connection_pool", self.connection_pool, ConnectionPool),
            "outlierDetection": _part("outlier_detection", self.outlier_detection, OutlierDetection),
            "loadBalancer": _part("load_balancer", self.load_balancer, LoadBalancer),
            "tls": self._tls(),
        }
        return {key: value for key, value in found.items() if value}

    def _tls(self) -> dict[str, Any]:
        if self.tls is None:
            return {}
        return self.tls.as_dict() if isinstance(self.tls, ClientTls) else mesh_tls("tls", self.tls)


def _part(argument: str, value: object, kind: type[Part]) -> dict[str, Any]:
    return {} if value is None else part(argument, value, kind)


def _given(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _checked(check: Any, argument: str, value: object) -> str | None:
    return None if value is None else str(check(argument, value))


def _count(argument: str, value: object, lowest: int = 1, highest: int = checks.MAX_INT32) -> int | None:
    return None if value is None else checks.whole_number(argument, value, lowest, highest)


def _time(argument: str, value: object, *, zero: bool = False) -> str | None:
    return None if value is None else duration(argument, value, zero=zero)


def _prime(argument: str, value: object) -> int:
    number = checks.whole_number(argument, value, 2, _LARGEST_MAGLEV_TABLE)
    if not is_prime(number):
        raise checks.refused(argument, value, "a prime, as in 65537")
    return number
