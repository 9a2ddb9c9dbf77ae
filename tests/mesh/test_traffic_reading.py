"""Reading DestinationRule."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.traffic import (
    ClientTls,
    ConnectionPool,
    DestinationRule,
    LoadBalancer,
    OutlierDetection,
    RetryBudget,
    Subset,
    TcpKeepalive,
    TlsMode,
    TrafficPolicy,
)
from tests.support.policies import document, faults, resources


def read(spec: Any, **metadata: Any) -> DestinationRule:
    (found,) = resources(document("DestinationRule", spec, **metadata)).destination_rules
    return found


def test_every_field_that_is_followed_is_read() -> None:
    found = read(
        {
            "host": "db",
            "exportTo": [".", "other"],
            "workloadSelector": {"matchLabels": {"app": "web"}},
            "trafficPolicy": {
                "tls": {
                    "mode": "MUTUAL",
                    "sni": "db.example",
                    "subjectAltNames": ["spiffe://a/b"],
                    "clientCertificate": "/c",
                    "privateKey": "/k",
                    "caCertificates": "/ca",
                    "caCrl": "/crl",
                    "insecureSkipVerify": False,
                },
                "loadBalancer": {"simple": "ROUND_ROBIN", "warmup": {"duration": "30s"}},
                "connectionPool": {
                    "tcp": {
                        "maxConnections": 10,
                        "connectTimeout": "30ms",
                        "idleTimeout": "0s",
                        "maxConnectionDuration": "1h",
                        "tcpKeepalive": {"probes": 3, "time": "7200s", "interval": "75s"},
                    },
                    "http": {
                        "http1MaxPendingRequests": 1,
                        "http2MaxRequests": 2,
                        "maxRequestsPerConnection": 3,
                        "maxRetries": 4,
                        "idleTimeout": "5m",
                        "maxConcurrentStreams": 6,
                        "h2UpgradePolicy": "DO_NOT_UPGRADE",
                        "useClientProtocol": True,
                    },
                },
                "outlierDetection": {
                    "consecutive5xxErrors": 7,
                    "consecutiveGatewayErrors": 8,
                    "consecutiveLocalOriginFailures": 9,
                    "splitExternalLocalOriginErrors": True,
                    "interval": "5m",
                    "baseEjectionTime": "15m",
                    "maxEjectionPercent": 50,
                    "minHealthPercent": 40,
                },
                "retryBudget": {"percent": 12.5, "minRetryConcurrency": 1},
                "portLevelSettings": [{"port": {"number": 5432}, "tls": {"mode": "DISABLE"}}],
            },
            "subsets": [
                {"name": "v1", "labels": {"version": "v1"}},
                {"name": "v2", "labels": {"version": "v2"}, "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}},
            ],
        },
        annotations={"qbitel.io/profile": "cnsa2"},
    )

    policy = found.traffic_policy
    assert (found.host, found.full_host, found.export_to) == ("db", "db.foo.svc.cluster.local", (".", "other"))
    assert found.selector is not None
    assert found.selector.match_labels == {"app": "web"}
    assert found.metadata.annotations == {"qbitel.io/profile": "cnsa2"}
    assert policy.tls == ClientTls(
        TlsMode.MUTUAL, "db.example", ("spiffe://a/b",), "/c", "/k", "/ca", "/crl", "", False
    )
    assert policy.load_balancer == LoadBalancer("ROUND_ROBIN", None, 30.0)
    assert policy.connection_pool == ConnectionPool(
        10, 0.03, 0.0, 3600.0, TcpKeepalive(3, 7200.0, 75.0), 1, 2, 3, 4, 300.0, 6, "DO_NOT_UPGRADE", True
    )
    assert policy.outlier_detection == OutlierDetection(7, 8, 9, True, 300.0, 900.0, 50, 40)
    assert policy.retry_budget == RetryBudget(12.5, 1)
    assert policy.ports == {5432: TrafficPolicy(tls=ClientTls(TlsMode.DISABLE))}
    assert found.subsets == (
        Subset("v1", {"version": "v1"}),
        Subset("v2", {"version": "v2"}, TrafficPolicy(tls=ClientTls(TlsMode.ISTIO_MUTUAL))),
    )


def test_what_is_not_said_is_none_and_defaults_are_istio_s() -> None:
    found = read(
        {"host": "db", "trafficPolicy": {"outlierDetection": {}, "connectionPool": {"tcp": {}}, "retryBudget": {}}}
    )

    assert found.traffic_policy.tls is None
    assert found.traffic_policy.outlier_detection == OutlierDetection()
    assert found.traffic_policy.connection_pool == ConnectionPool()
    assert found.traffic_policy.retry_budget == RetryBudget()
    assert read({"host": "db"}).traffic_policy == TrafficPolicy()


def test_the_old_name_of_consecutive_errors_is_read() -> None:
    found = read({"host": "db", "trafficPolicy": {"outlierDetection": {"consecutiveErrors": 3}}})

    assert found.traffic_policy.outlier_detection == OutlierDetection(consecutive_5xx_errors=3)


def test_fields_that_may_be_null_are_not_given_then() -> None:
    null = {"consecutive5xxErrors": None, "consecutiveErrors": 3, "consecutiveGatewayErrors": None}
    found = read(
        {
            "host": "db",
            "trafficPolicy": {
                "outlierDetection": null,
                "retryBudget": {"percent": None},
                "tls": {"mode": "SIMPLE", "insecureSkipVerify": None},
            },
        }
    )

    assert found.traffic_policy.outlier_detection == OutlierDetection(consecutive_5xx_errors=3)
    assert found.traffic_policy.retry_budget == RetryBudget()
    assert found.traffic_policy.tls == ClientTls(TlsMode.SIMPLE)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({}, "spec.host: is missing"),
        ({"host": ""}, "spec.host: must not be empty"),
        (
            {"host": "a b"},
            "spec.host: 'a b' is no name of a host, as in web, web.shop.svc.cluster.local or *.example.com",
        ),
        (
            {"host": "a.*.b"},
            "spec.host: 'a.*.b' is no name of a host, as in web, web.shop.svc.cluster.local or *.example.com",
        ),
        (
            {"host": "a..b"},
            "spec.host: 'a..b' is no name of a host, as in web, web.shop.svc.cluster.local or *.example.com",
        ),
        ({"host": "x", "exportTo": ["A"]}, "spec.exportTo[0]: 'A' is no namespace, nor one of . and *"),
        (
            {"host": "x", "trafficPolicy": {"tls": {"mode": "STRICT"}}},
            "spec.trafficPolicy.tls.mode: 'STRICT' is none of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL",
        ),
        (
            {"host": "x", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL", "clientCertificate": "/c"}}},
            "spec.trafficPolicy.tls.clientCertificate: is not set with ISTIO_MUTUAL: the mesh issues the certificates",
        ),
        (
            {"host": "x", "trafficPolicy": {"tls": {"mode": "MUTUAL"}}},
            "spec.trafficPolicy.tls: MUTUAL names its certificate: clientCertificate and privateKey, or credentialName",
        ),
        (
            {"host": "x", "trafficPolicy": {"tls": {"mode": "SIMPLE", "credentialName": "a", "caCrl": "/c"}}},
            "spec.trafficPolicy.tls.caCrl: is not set beside credentialName, which holds all certificates",
        ),
        *(
            (
                {"host": "x", "trafficPolicy": {"tls": {"mode": "SIMPLE", "insecureSkipVerify": True, name: value}}},
                f"spec.trafficPolicy.tls.{name}: is not looked at with insecureSkipVerify; leave one of them out",
            )
            for name, value in (("caCertificates", "/c"), ("subjectAltNames", ["a"]), ("credentialName", "a"))
        ),
        (
            {
                "host": "x",
                "trafficPolicy": {"loadBalancer": {"simple": "RANDOM", "consistentHash": {"useSourceIp": True}}},
            },
            "spec.trafficPolicy.loadBalancer.consistentHash: "
            "only one of simple, consistentHash, backendUtilization can be set",
        ),
        (
            {"host": "x", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": -1}}}},
            "spec.trafficPolicy.connectionPool.tcp.maxConnections: -1 is not within 0 to 2147483647",
        ),
        (
            {"host": "x", "trafficPolicy": {"outlierDetection": {"maxEjectionPercent": 101}}},
            "spec.trafficPolicy.outlierDetection.maxEjectionPercent: 101 is not within 0 to 100",
        ),
        (
            {"host": "x", "trafficPolicy": {"portLevelSettings": [{"tls": {"mode": "DISABLE"}}]}},
            "spec.trafficPolicy.portLevelSettings[0].port: is missing",
        ),
        (
            {"host": "x", "trafficPolicy": {"portLevelSettings": [{"port": {"number": 1}, "tls": {}}] * 2}},
            "spec.trafficPolicy.portLevelSettings[1].port.number: 1 is given twice",
        ),
        (
            {"host": "x", "trafficPolicy": {"portLevelSettings": [{"port": {"number": 1}}]}},
            "spec.trafficPolicy.portLevelSettings[0]: says nothing about the port; "
            "give one of connectionPool, loadBalancer, outlierDetection, tls",
        ),
        ({"host": "x", "trafficPolicy": {}}, "spec.trafficPolicy: is empty; leave it out where nothing is meant"),
        (
            {"host": "x", "trafficPolicy": {"connectionPool": {}}},
            "spec.trafficPolicy.connectionPool: is empty: one of tcp and http is wanted",
        ),
        (
            {
                "host": "x",
                "trafficPolicy": {
                    "connectionPool": {"http": {"h2UpgradePolicy": "UPGRADE", "useClientProtocol": True}}
                },
            },
            "spec.trafficPolicy.connectionPool.http.useClientProtocol: "
            "keeps what the client speaks, and UPGRADE changes it",
        ),
        (
            {"host": "x", "trafficPolicy": {"connectionPool": {"http": {"http2KeepAlive": {"interval": "1s"}}}}},
            "spec.trafficPolicy.connectionPool.http.http2KeepAlive.timeout: is missing",
        ),
        (
            {"host": "x", "trafficPolicy": {"outlierDetection": {"consecutiveLocalOriginFailures": 1}}},
            "spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures: "
            "is looked at only where splitExternalLocalOriginErrors is true",
        ),
        ({"host": "x", "subsets": [{"name": "a"}, {"name": "a"}]}, "spec.subsets[1].name: 'a' is given twice"),
        ({"host": "x", "subsets": [{"labels": {}}]}, "spec.subsets[0].name: is missing"),
    ],
)
def test_what_is_written_wrongly_is_refused(spec: Any, fault: str) -> None:
    assert faults("DestinationRule", spec) == [fault]


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        (
            {"host": "db.data"},
            "spec.host: 'db.data' is taken as it stands: a Service is web or web.shop.svc.cluster.local",
        ),
        (
            {"host": "db", "trafficPolicy": {"tls": {"mode": "SIMPLE", "insecureSkipVerify": True}}},
            "spec.trafficPolicy.tls.insecureSkipVerify: the server may be anybody",
        ),
        (
            {"host": "db", "trafficPolicy": {"proxyProtocol": {"version": "V2"}}},
            "spec.trafficPolicy.proxyProtocol: is not done by a sidecar of ours",
        ),
    ],
)
def test_what_will_not_do_what_is_meant_is_warned_of(spec: Any, warning: str) -> None:
    assert faults("DestinationRule", spec, "warning") == [warning]
