"""Whatever arguments a builder takes, what it returns is good; whatever it does not take, it says which and why."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.building.authorization_policy import authorization_policy
from mesh.building.client_tls import ClientTls
from mesh.building.connection_routes import TcpRoute, TlsRoute
from mesh.building.destination_rule import destination_rule
from mesh.building.local_rate_limit import local_rate_limit
from mesh.building.peer_authentication import peer_authentication
from mesh.building.request_authentication import JwtRule, request_authentication
from mesh.building.route_destination import Destination
from mesh.building.service_entry import service_entry
from mesh.building.sidecar import sidecar
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy
from mesh.building.virtual_service import Fault, HttpRoute, RequestMatch, Retries, virtual_service
from tests.mesh.building.strategies import RESOURCES
from tests.support.built import assert_good, assert_valid, is_plain
from tests.support.istio_schemas import needs_schemas, rule_faults, schema_faults
from tests.support.junk import JUNK, taken_or_refused


@pytest.mark.parametrize("kind", RESOURCES)
def test_what_is_built_is_plain_data_that_our_own_reader_takes(kind: str) -> None:
    @settings(max_examples=30)
    @given(RESOURCES[kind])
    def check(resource: dict[str, Any]) -> None:
        assert resource["kind"] == kind
        assert_good(resource)

    check()


@pytest.mark.parametrize("kind", RESOURCES)
def test_what_is_built_is_valid_by_istio_s_schema(kind: str) -> None:
    needs_schemas()

    @settings(max_examples=30)
    @given(RESOURCES[kind])
    def check(resource: dict[str, Any]) -> None:
        assert_valid(resource)

    check()


@pytest.mark.parametrize("kind", RESOURCES)
def test_what_is_built_keeps_istio_s_rules(kind: str) -> None:
    needs_schemas()

    @settings(max_examples=30)
    @given(RESOURCES[kind])
    def check(resource: dict[str, Any]) -> None:
        faults = rule_faults(resource)
        assert not faults, faults

    check()


@pytest.mark.parametrize(
    ("kind", "api_version", "spec"),
    [
        ("PeerAuthentication", "security.istio.io/v1", {"portLevelMtls": {"80": {"mode": "STRICT"}}}),
        ("PeerAuthentication", "security.istio.io/v1", {"selector": {"matchLabels": {"a": "*"}}}),
        ("RequestAuthentication", "security.istio.io/v1", {"jwtRules": [{"issuer": "a", "jwksUri": "ftp://a"}]}),
        ("ServiceEntry", "networking.istio.io/v1", {"hosts": ["*"]}),
    ],
)
def test_the_judge_of_rules_finds_what_breaks_them(kind: str, api_version: str, spec: dict[str, Any]) -> None:
    needs_schemas()

    assert rule_faults({"apiVersion": api_version, "kind": kind, "spec": spec}) != []


@pytest.mark.parametrize("spec", [{"mtls": {"mode": "STRONG"}}, {"mtls": {"mod": "STRICT"}}, {"portLevelMtls": {}}])
def test_the_judge_of_schemas_finds_what_breaks_them(spec: dict[str, Any]) -> None:
    made = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {}, "spec": spec}

    assert schema_faults(made) != []


# One call that works for each builder; a test replaces one argument of it by anything.
NAMED = {"name": "web", "namespace": "shop"}
SELECTED = {**NAMED, "selector": {"app": "web"}}
RULE = {
    "from": [{"source": {"principals": ["*"]}}],
    "to": [{"operation": {"methods": ["GET"]}}],
    "when": [{"key": "source.ip", "values": ["10.0.0.0/8"]}],
}
CALLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (peer_authentication, {**SELECTED, "mode": "STRICT", "port_modes": {8080: "DISABLE"}}),
    (authorization_policy, {**SELECTED, "action": "DENY", "rules": [RULE]}),
    (authorization_policy, {**NAMED, "action": "CUSTOM", "rules": [{}], "provider": "authz"}),
    (request_authentication, {**SELECTED, "jwt_rules": [JwtRule("https://auth.example.com")]}),
    (destination_rule, {**NAMED, "host": "web", "subsets": {"v1": {"version": "v1"}}}),
    (virtual_service, {**NAMED, "hosts": ["web"], "http": [HttpRoute([Destination("web")])]}),
    (local_rate_limit, {**SELECTED, "requests_per_second": 10, "burst": 20}),
    (sidecar, {**SELECTED, "egress_hosts": ["./*"], "outbound_mode": "ALLOW_ANY"}),
    (service_entry, {**NAMED, "hosts": ["api.example.com"], "ports": {443: "HTTPS"}}),
    (JwtRule, {"issuer": "https://auth.example.com"}),
    (ConnectionPool, {"max_connections": 1}),
    (OutlierDetection, {"interval": 1}),
    (LoadBalancer, {}),
    (ClientTls, {"mode": "SIMPLE", "ca_certificates": "system"}),
    (TrafficPolicy, {"tls": "DISABLE"}),
    (TcpRoute, {"destinations": [Destination("db")]}),
    (TlsRoute, {"destinations": [Destination("db")], "sni_hosts": ["db.example"]}),
    (virtual_service, {**NAMED, "hosts": ["web"], "tcp": [TcpRoute([Destination("web")])]}),
    (Destination, {"host": "web"}),
    (RequestMatch, {"port": 80}),
    (Retries, {"attempts": 1}),
    (Fault, {"delay": 1}),
    (HttpRoute, {"destinations": [Destination("web")]}),
]


@pytest.mark.parametrize(("build", "call"), CALLS, ids=[f"{build.__name__}-{len(call)}" for build, call in CALLS])
def test_anything_for_an_argument_is_taken_rightly_or_refused_by_its_name(
    build: Callable[..., Any], call: dict[str, Any]
) -> None:
    arguments = list(inspect.signature(build).parameters)

    @settings(max_examples=60)
    @given(st.sampled_from(arguments), JUNK)
    def check(argument: str, junk: object) -> None:
        made = taken_or_refused(build, call, argument, junk)
        if made is not None:
            assert is_plain(made if isinstance(made, dict) else made.as_dict())

    check()


@pytest.mark.parametrize(("build", "call"), CALLS, ids=[f"{build.__name__}-{len(call)}" for build, call in CALLS])
def test_an_argument_that_is_left_out_is_told(build: Callable[..., Any], call: dict[str, Any]) -> None:
    required = [
        name for name, parameter in inspect.signature(build).parameters.items() if parameter.default is parameter.empty
    ]
    for name in required:
        with pytest.raises((TypeError, ValueError), match=name):
            build(**{key: value for key, value in call.items() if key != name})


def test_what_is_built_shares_nothing_with_the_arguments() -> None:
    rule = copy.deepcopy(RULE)
    selector = {"app": "web"}
    policy = authorization_policy("web", "shop", rules=[rule], selector=selector)
    before = copy.deepcopy(policy)

    rule["from"][0]["source"]["principals"].append("cluster.local/ns/a/sa/b")  # type: ignore[index]
    selector["app"] = "other"

    assert policy == before
