"""What of a DestinationRule no sidecar of ours does is said, field by field, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.following import unfollowed
from mesh.metadata import Metadata
from mesh.traffic import DestinationRule, TrafficPolicy
from tests.mesh.written import resource, resources


def said(policy: dict[str, Any], host: str = "db.example.com", **more: Any) -> list[str]:
    spec = {"host": host, **({"trafficPolicy": policy} if policy else {}), **more}
    (found,) = resources(resource("DestinationRule", "shop/db", json.dumps(spec))).destination_rules
    return [f"{one.severity}: {one.field}: {one.message}" for one in unfollowed(found)]


FOLLOWED = {
    "connectionPool": {
        "tcp": {"maxConnections": 5, "connectTimeout": "2s"},
        "http": {"http1MaxPendingRequests": 1},
    },
    "loadBalancer": {"simple": "ROUND_ROBIN"},
    "outlierDetection": {
        "consecutive5xxErrors": 3, "consecutiveGatewayErrors": 3, "consecutiveLocalOriginFailures": 3,
        "splitExternalLocalOriginErrors": True, "interval": "1s", "baseEjectionTime": "1s", "maxEjectionPercent": 50,
        "minHealthPercent": 1,
    },
    "tls": {"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://cluster.local/ns/shop/sa/db"]},
}  # fmt: skip


def test_of_a_rule_that_is_followed_nothing_is_said() -> None:
    assert said(FOLLOWED) == []
    assert said({**FOLLOWED, "portLevelSettings": [{"port": {"number": 80}, **FOLLOWED}]}) == []
    assert said({}, exportTo=["."], workloadSelector={"matchLabels": {"app": "web"}}) == []


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        ({"connectionPool": {"tcp": {"idleTimeout": "1h"}}}, "connectionPool.tcp.idleTimeout"),
        (
            {"connectionPool": {"http": {"maxRetries": 1, "http2MaxRequests": 1}}},
            "connectionPool.http.maxRetries, connectionPool.http.http2MaxRequests",
        ),
        ({"loadBalancer": {"consistentHash": {"useSourceIp": True}}}, "loadBalancer.consistentHash"),
        ({"loadBalancer": {"simple": "RANDOM", "warmup": {"duration": "1s"}}}, "loadBalancer.warmup"),
        ({"outlierDetection": {"outlierDetectionHttpErrorCodes": [500]}},
         "outlierDetection.outlierDetectionHttpErrorCodes"),
        ({"tls": {"mode": "ISTIO_MUTUAL", "sni": "a"}}, "tls.sni"),
        ({"retryBudget": {"percent": 5}}, "retryBudget"),
        ({"portLevelSettings": [{"port": {"number": 80}, "connectionPool": {"http": {"maxRetries": 1}}}]},
         "connectionPool.http.maxRetries"),
    ],
)  # fmt: skip
def test_what_is_not_followed_is_named(policy: dict[str, Any], fields: str) -> None:
    assert said(policy) == [f"note: spec: no sidecar of ours follows {fields}"]


def test_subsets_are_not_followed() -> None:
    assert said({}, subsets=[{"name": "v2", "labels": {"version": "v2"}}]) == [
        "note: spec: no sidecar of ours follows subsets"
    ]


@pytest.mark.parametrize("tls", [{"mode": "SIMPLE"}, {"mode": "MUTUAL", "credentialName": "partner"}])
def test_tls_of_another_kind_is_a_warning_because_plaintext_goes_where_it_was_wanted(tls: dict[str, Any]) -> None:
    warning, *more = said({"tls": tls})
    message = f"no sidecar of ours makes TLS {tls['mode']}: it dials as if nothing were said of TLS"
    assert warning == f"warning: spec.trafficPolicy.tls.mode: {message}"
    assert more == (["note: spec: no sidecar of ours follows tls.credentialName"] if "credentialName" in tls else [])
    (at_port,) = said({"portLevelSettings": [{"port": {"number": 443}, "tls": {"mode": "SIMPLE"}}]})
    assert at_port.startswith("warning: spec.trafficPolicy.portLevelSettings: no sidecar of ours makes TLS SIMPLE")


def test_behind_the_address_of_a_service_a_sidecar_does_not_choose() -> None:
    policy = {"loadBalancer": {"simple": "RANDOM"}, "outlierDetection": {}}
    (note,) = said(policy, "web")
    assert note.startswith("note: spec: loadBalancer and outlierDetection: a sidecar chooses where")
    assert note.endswith("behind a Service's own address kube-proxy does")
    assert said(policy) == []


def test_a_rule_that_was_built_has_no_fields_to_name() -> None:
    built = DestinationRule(Metadata("DestinationRule", "shop", "a"), "db.example.com", TrafficPolicy())
    assert list(unfollowed(built)) == []
