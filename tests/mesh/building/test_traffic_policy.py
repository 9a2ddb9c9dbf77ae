"""The parts of a trafficPolicy."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.client_tls import ClientTls
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy


def test_a_connection_pool_is_told_in_two_parts() -> None:
    pool = ConnectionPool(
        max_connections=100,
        connect_timeout="30ms",
        tcp_idle_timeout=0,
        max_connection_duration="1h",
        max_pending_requests=10,
        max_requests=1000,
        max_requests_per_connection=0,
        max_retries=3,
        http_idle_timeout=60,
    )

    assert pool.as_dict() == {
        "tcp": {
            "maxConnections": 100,
            "connectTimeout": "30ms",
            "idleTimeout": "0s",
            "maxConnectionDuration": "1h",
        },
        "http": {
            "http1MaxPendingRequests": 10,
            "http2MaxRequests": 1000,
            "maxRequestsPerConnection": 0,
            "maxRetries": 3,
            "idleTimeout": "60s",
        },
    }
    assert ConnectionPool(max_connections=1).as_dict() == {"tcp": {"maxConnections": 1}}
    assert ConnectionPool().as_dict() == {}


def test_outliers_are_found_by_errors_in_a_row() -> None:
    outliers = OutlierDetection(
        consecutive_5xx_errors=5, interval="10s", base_ejection_time=30, max_ejection_percent=50, min_health_percent=0
    )

    assert outliers.as_dict() == {
        "consecutive5xxErrors": 5,
        "interval": "10s",
        "baseEjectionTime": "30s",
        "maxEjectionPercent": 50,
        "minHealthPercent": 0,
    }


def test_counting_local_failures_tells_them_apart_as_istio_asks() -> None:
    assert OutlierDetection(consecutive_local_origin_failures=5).as_dict() == {
        "splitExternalLocalOriginErrors": True,
        "consecutiveLocalOriginFailures": 5,
    }


@pytest.mark.parametrize(
    ("balancer", "spec"),
    [
        (LoadBalancer("LEAST_REQUEST"), {"simple": "LEAST_REQUEST"}),
        (LoadBalancer("ROUND_ROBIN", warmup="30s"), {"simple": "ROUND_ROBIN", "warmup": {"duration": "30s"}}),
        (LoadBalancer(hash_header="x-user"), {"consistentHash": {"httpHeaderName": "x-user"}}),
        (LoadBalancer(hash_source_ip=True), {"consistentHash": {"useSourceIp": True}}),
        (LoadBalancer(hash_query_parameter="u"), {"consistentHash": {"httpQueryParameterName": "u"}}),
        (
            LoadBalancer(hash_cookie="c", hash_cookie_ttl=0, ring_size=1024),
            {"consistentHash": {"httpCookie": {"name": "c", "ttl": "0s"}, "ringHash": {"minimumRingSize": 1024}}},
        ),
        (
            LoadBalancer(hash_header="a", maglev_table_size=65537),
            {"consistentHash": {"httpHeaderName": "a", "maglev": {"tableSize": 65537}}},
        ),
        (LoadBalancer(), {}),
    ],
)
def test_load_is_balanced_by_an_algorithm_or_a_hash(balancer: LoadBalancer, spec: dict[str, Any]) -> None:
    assert balancer.as_dict() == spec


@pytest.mark.parametrize(
    ("kind", "wrong", "argument"),
    [
        (ConnectionPool, {"max_connections": 0}, "max_connections"),
        (ConnectionPool, {"max_connections": -1}, "max_connections"),
        (ConnectionPool, {"max_connections": 2**31}, "max_connections"),
        (ConnectionPool, {"max_requests": 1.5}, "max_requests"),
        (ConnectionPool, {"max_retries": -1}, "max_retries"),
        (ConnectionPool, {"connect_timeout": "1"}, "connect_timeout"),
        (ConnectionPool, {"connect_timeout": 0}, "connect_timeout"),
        (OutlierDetection, {"consecutive_5xx_errors": -1}, "consecutive_5xx_errors"),
        (OutlierDetection, {"max_ejection_percent": 101}, "max_ejection_percent"),
        (OutlierDetection, {"min_health_percent": "50"}, "min_health_percent"),
        (OutlierDetection, {"interval": -1}, "interval"),
        (LoadBalancer, {"algorithm": "LEAST_CONN"}, "algorithm"),  # deprecated by Istio
        (LoadBalancer, {"algorithm": "RANDOM", "hash_header": "a"}, "algorithm"),
        (LoadBalancer, {"hash_header": "a", "hash_source_ip": True}, "hash_header, .*"),
        (LoadBalancer, {"hash_header": "a b"}, "hash_header"),
        (LoadBalancer, {"hash_source_ip": "yes"}, "hash_source_ip"),
        (LoadBalancer, {"hash_cookie_ttl": 1}, "hash_cookie_ttl"),
        (LoadBalancer, {"ring_size": 1024}, "ring_size, maglev_table_size"),
        (LoadBalancer, {"hash_header": "a", "ring_size": 0}, "ring_size"),
        (LoadBalancer, {"hash_header": "a", "ring_size": 2**23 + 1}, "ring_size"),
        (LoadBalancer, {"hash_header": "a", "maglev_table_size": 65536}, "maglev_table_size"),
        (LoadBalancer, {"hash_header": "a", "maglev_table_size": 5000011}, "maglev_table_size"),
        (LoadBalancer, {"hash_header": "a", "ring_size": 8, "maglev_table_size": 3}, "ring_size, .*"),
        (LoadBalancer, {"warmup": "0s"}, "warmup"),
        (TrafficPolicy, {"tls": "SIMPLE"}, "tls"),
        (TrafficPolicy, {"connection_pool": {}}, "connection_pool"),
    ],
)
def test_wrong_arguments_are_refused(kind: type, wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        kind(**wrong)


def test_parts_that_say_nothing_are_left_out() -> None:
    policy = TrafficPolicy(
        connection_pool=ConnectionPool(), outlier_detection=OutlierDetection(), load_balancer=LoadBalancer("RANDOM")
    )

    assert policy.as_dict() == {"loadBalancer": {"simple": "RANDOM"}}
    assert TrafficPolicy().as_dict() == {}


@pytest.mark.parametrize(
    ("tls", "block"),
    [
        ("DISABLE", {"mode": "DISABLE"}),
        (ClientTls(mode="SIMPLE", ca_certificates="system"), {"mode": "SIMPLE", "caCertificates": "system"}),
    ],
)
def test_tls_is_the_mesh_s_or_of_somebody_else(tls: str | ClientTls, block: dict[str, str]) -> None:
    assert TrafficPolicy(tls=tls).as_dict() == {"tls": block}
