"""MeshPolicyManager."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.policy_manager import MeshPolicyManager
from control.service_policy import ServicePolicy
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection
from mesh.building.virtual_service import Retries
from mesh.decision import compile_policies
from mesh.documents import Document
from mesh.facts import Facts, HttpFacts
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from tests.mesh.building.strategies import (
    BALANCERS,
    LABELS,
    METHODS,
    OUTLIERS,
    POOLS,
    RATES,
    RETRIES,
    SELECTORS,
    TIMES,
    maybe,
    several,
)
from tests.support.built import assert_good, assert_valid
from tests.support.istio_schemas import needs_schemas
from tests.support.junk import JUNK, taken_or_refused

ISSUER = "https://auth.example.com"
HOST = "web.shop.svc.cluster.local"
FULL = ServicePolicy(
    "web",
    "shop",
    ["frontend", "jobs/batch"],
    ["GET", "POST"],
    require_jwt=True,
    rate_limit=100,
    rate_limit_burst=300,
    jwt_issuer=ISSUER,
    jwt_audiences=["api"],
    connection_pool=ConnectionPool(max_connections=10),
    outlier_detection=OutlierDetection(consecutive_5xx_errors=5),
    load_balancer=LoadBalancer("LEAST_REQUEST"),
    retries=Retries(2),
    timeout="2s",
)


@pytest.fixture
def manager() -> MeshPolicyManager:
    return MeshPolicyManager()


def by_kind(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert len({one["kind"] for one in resources}) == len(resources)
    return {one["kind"]: one["spec"] for one in resources}


def test_a_service_s_policies_come_in_one_order_under_one_name(manager: MeshPolicyManager) -> None:
    made = manager.create_complete_service_policies(FULL)

    assert [one["kind"] for one in made] == [
        "PeerAuthentication",
        "RequestAuthentication",
        "AuthorizationPolicy",
        "EnvoyFilter",
        "DestinationRule",
        "VirtualService",
    ]
    assert {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in made} == {("shop", "web")}
    assert all(one["metadata"]["labels"]["qbitel.io/service"] == "web" for one in made)
    assert_good(*made)


def test_callers_need_an_identity_and_a_token_at_once(manager: MeshPolicyManager) -> None:
    specs = by_kind(manager.create_complete_service_policies(FULL))

    assert specs["AuthorizationPolicy"] == {
        "selector": {"matchLabels": {"app": "web"}},
        "action": "ALLOW",
        "rules": [
            {
                "from": [
                    {
                        "source": {
                            "principals": ["cluster.local/ns/shop/sa/frontend", "cluster.local/ns/jobs/sa/batch"],
                            "requestPrincipals": [f"{ISSUER}/*"],
                        }
                    }
                ],
                "to": [{"operation": {"methods": ["GET", "POST"]}}],
            }
        ],
    }
    assert specs["RequestAuthentication"]["jwtRules"] == [{"issuer": ISSUER, "audiences": ["api"]}]
    assert specs["PeerAuthentication"] == {
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": "STRICT"},
    }


def test_the_way_to_a_service_is_one_rule_and_one_route(manager: MeshPolicyManager) -> None:
    specs = by_kind(manager.create_complete_service_policies(FULL))

    assert specs["DestinationRule"] == {
        "host": HOST,
        "trafficPolicy": {
            "connectionPool": {"tcp": {"maxConnections": 10}},
            "outlierDetection": {"consecutive5xxErrors": 5},
            "loadBalancer": {"simple": "LEAST_REQUEST"},
            "tls": {"mode": "ISTIO_MUTUAL"},
        },
    }
    assert specs["VirtualService"] == {
        "hosts": [HOST],
        "http": [{"timeout": "2s", "retries": {"attempts": 2}, "route": [{"destination": {"host": HOST}}]}],
    }


def test_nobody_is_let_in_where_nobody_is_named(manager: MeshPolicyManager) -> None:
    specs = by_kind(manager.create_complete_service_policies(ServicePolicy("web", "shop", require_mtls=False)))

    assert specs == {"AuthorizationPolicy": {"selector": {"matchLabels": {"app": "web"}}}}


def test_without_an_issuer_any_verified_token_counts(manager: MeshPolicyManager) -> None:
    made = manager.create_complete_service_policies(ServicePolicy("web", "shop", ["*"], require_jwt=True))
    specs = by_kind(made)

    assert "RequestAuthentication" not in specs
    assert specs["AuthorizationPolicy"]["rules"] == [
        {"from": [{"source": {"principals": ["*"], "requestPrincipals": ["*"]}}]}
    ]


def test_callers_are_of_the_manager_s_trust_domain() -> None:
    manager = MeshPolicyManager(trust_domain="td.example", profile="cnsa2")
    specs = by_kind(manager.create_complete_service_policies(ServicePolicy("web", "shop", ["a"], rate_limit=1)))

    (rule,) = specs["AuthorizationPolicy"]["rules"]
    assert rule["from"] == [{"source": {"principals": ["td.example/ns/shop/sa/a"]}}]


def test_without_required_mtls_nothing_is_said_about_tls(manager: MeshPolicyManager) -> None:
    policy = ServicePolicy("web", "shop", require_mtls=False, load_balancer=LoadBalancer("RANDOM"))
    rule = manager.create_complete_service_policies(policy)[-1]

    assert rule["spec"]["trafficPolicy"] == {"loadBalancer": {"simple": "RANDOM"}}
    assert "annotations" not in rule["metadata"]


def let_in(policy: ServicePolicy, caller: str | None, http: HttpFacts | None) -> bool:
    """Whether a sidecar of the service would let this in."""
    made = MeshPolicyManager().create_complete_service_policies(policy)
    found = ResourceSet.of([Document(one, "here", {}) for one in made])
    assert not found.errors
    workload = Workload(policy.namespace, policy.pod_labels, policy.service_name)
    principal = None if caller is None else f"cluster.local/ns/{caller.replace('/', '/sa/')}"
    return compile_policies(found.authorization_policies, workload).decide(Facts(8080, principal, http=http)).allowed


TOKEN = {"iss": ISSUER, "sub": "me"}


@pytest.mark.parametrize(
    ("caller", "http", "allowed"),
    [
        ("shop/frontend", HttpFacts("GET", "/", claims=TOKEN), True),
        ("jobs/batch", HttpFacts("POST", "/orders", claims=TOKEN), True),
        ("shop/frontend", HttpFacts("GET", "/"), False),  # no token
        ("shop/frontend", HttpFacts("GET", "/", claims={"iss": "https://other.example", "sub": "me"}), False),
        ("shop/frontend", HttpFacts("DELETE", "/", claims=TOKEN), False),
        ("shop/batch", HttpFacts("GET", "/", claims=TOKEN), False),
        (None, HttpFacts("GET", "/", claims=TOKEN), False),  # plaintext
        ("shop/frontend", None, False),  # requests are not read, so that nobody can say what they are
    ],
)
def test_a_service_lets_in_whom_its_policy_names(caller: str | None, http: HttpFacts | None, allowed: bool) -> None:
    assert let_in(FULL, caller, http) is allowed


def test_without_conditions_on_requests_connections_can_be_decided() -> None:
    policy = ServicePolicy("web", "shop", ["frontend"])

    assert let_in(policy, "shop/frontend", None)
    assert not let_in(policy, "shop/other", None)


POLICIES = st.builds(
    ServicePolicy,
    LABELS,
    LABELS,
    several(LABELS | st.builds("{}/{}".format, LABELS, LABELS), 0),
    maybe(several(METHODS)),
    st.booleans(),
    st.booleans(),
    maybe(RATES),
    connection_pool=maybe(POOLS),
    outlier_detection=maybe(OUTLIERS),
    load_balancer=maybe(BALANCERS),
    retries=maybe(RETRIES),
    timeout=maybe(TIMES),
    selector=maybe(SELECTORS),
).filter(
    lambda policy: len({*(name.rpartition("/")[2] for name in policy.allowed_sources)}) == len(policy.allowed_sources)
)


@settings(max_examples=25)
@given(POLICIES)
def test_any_service_s_policies_are_read_as_they_were_meant(policy: ServicePolicy) -> None:
    assert_good(*MeshPolicyManager().create_complete_service_policies(policy))


@settings(max_examples=25)
@given(POLICIES)
def test_any_service_s_policies_are_valid_by_istio_s_schemas(policy: ServicePolicy) -> None:
    needs_schemas()
    assert_valid(*MeshPolicyManager().create_complete_service_policies(policy))


def test_a_rate_limit_has_a_bucket_with_room_for_a_burst(manager: MeshPolicyManager) -> None:
    made = manager.create_rate_limit_policy(
        "api", "shop", {"app": "api"}, requests_per_second=1000, burst=2000, port=80
    )
    (patch,) = made["spec"]["configPatches"]

    assert patch["match"]["listener"]["portNumber"] == 80
    assert patch["patch"]["value"]["typed_config"]["token_bucket"] == {
        "max_tokens": 2000,
        "tokens_per_fill": 1000,
        "fill_interval": "1s",
    }


def test_jwt_authentication_covers_a_namespace_or_some_pods(manager: MeshPolicyManager) -> None:
    of_namespace = manager.create_jwt_authentication("api", "shop", ISSUER, f"{ISSUER}/keys", ["api"])
    of_pods = manager.create_jwt_authentication(
        "api", "shop", ISSUER, jwks={"keys": [{"kty": "RSA"}]}, selector={"app": "api"}, forward_original_token=True
    )

    assert of_namespace["spec"] == {"jwtRules": [{"issuer": ISSUER, "jwksUri": f"{ISSUER}/keys", "audiences": ["api"]}]}
    assert of_pods["spec"] == {
        "selector": {"matchLabels": {"app": "api"}},
        "jwtRules": [{"issuer": ISSUER, "jwks": '{"keys":[{"kty":"RSA"}]}', "forwardOriginalToken": True}],
    }
    assert_good(of_namespace)
    assert_good(of_pods)


def test_a_circuit_breaker_limits_what_is_asked_and_leaves_out_what_fails(manager: MeshPolicyManager) -> None:
    made = manager.create_circuit_breaker_policy("web", "shop", HOST, max_connections=10, consecutive_errors=3)

    assert made["metadata"]["annotations"] == {"qbitel.io/profile": "qbitel"}
    assert made["spec"]["trafficPolicy"] == {
        "connectionPool": {
            "tcp": {"maxConnections": 10},
            "http": {"http1MaxPendingRequests": 100, "http2MaxRequests": 1000},
        },
        "outlierDetection": {
            "consecutive5xxErrors": 3,
            "interval": "10s",
            "baseEjectionTime": "30s",
            "maxEjectionPercent": 50,
        },
        "tls": {"mode": "ISTIO_MUTUAL"},
    }
    assert_good(made)


def test_load_is_balanced_by_a_name_or_a_load_balancer(manager: MeshPolicyManager) -> None:
    by_name = manager.create_load_balancing_policy("web", "shop", HOST, enable_quantum_tls=False)
    by_hash = manager.create_load_balancing_policy("web", "shop", HOST, LoadBalancer(hash_header="x-user"))

    assert by_name["spec"]["trafficPolicy"] == {"loadBalancer": {"simple": "LEAST_REQUEST"}}
    assert by_hash["spec"]["trafficPolicy"]["loadBalancer"] == {"consistentHash": {"httpHeaderName": "x-user"}}
    assert_good(by_name)
    assert_good(by_hash)


def test_requests_are_tried_again_and_end_in_time(manager: MeshPolicyManager) -> None:
    retried = manager.create_retry_policy("web", "shop", HOST, 2, per_try_timeout=0.5, retry_on="5xx", timeout="2s")
    bounded = manager.create_timeout_policy("web", "shop", HOST, 2)

    assert retried["spec"]["http"] == [
        {
            "timeout": "2s",
            "retries": {"attempts": 2, "perTryTimeout": "0.5s", "retryOn": "5xx"},
            "route": [{"destination": {"host": HOST}}],
        }
    ]
    assert bounded["spec"]["http"] == [{"timeout": "2s", "route": [{"destination": {"host": HOST}}]}]
    assert_good(retried)
    assert_good(bounded)


@pytest.mark.parametrize(
    ("method", "arguments", "argument"),
    [
        ("create_complete_service_policies", {"service_policy": {"service_name": "web"}}, "service_policy"),
        ("create_rate_limit_policy", {"selector": {"app": "a"}, "requests_per_second": -1}, "requests_per_second"),
        ("create_rate_limit_policy", {"selector": {}, "requests_per_second": 1}, "selector"),
        ("create_rate_limit_policy", {"selector": {"a": "b"}, "requests_per_second": 1, "burst": -1}, "burst"),
        ("create_jwt_authentication", {"issuer": ""}, "issuer"),
        ("create_jwt_authentication", {"issuer": ISSUER, "jwks_uri": "keys"}, "jwks_uri"),
        ("create_traffic_policy", {"host": HOST, "enable_quantum_tls": 1}, "enable_quantum_tls"),
        ("create_circuit_breaker_policy", {"host": HOST, "max_connections": 0}, "max_connections"),
        ("create_circuit_breaker_policy", {"host": HOST, "consecutive_errors": 0}, "consecutive_errors"),
        ("create_circuit_breaker_policy", {"host": HOST, "max_ejection_percent": 101}, "max_ejection_percent"),
        ("create_load_balancing_policy", {"host": HOST, "load_balancer": "FASTEST"}, "load_balancer"),
        ("create_load_balancing_policy", {"host": HOST, "load_balancer": None}, "load_balancer"),
        ("create_retry_policy", {"host": HOST, "attempts": -1}, "attempts"),
        ("create_retry_policy", {"host": "*.shop"}, "host"),
        ("create_timeout_policy", {"host": HOST, "timeout": None}, "timeout"),
        ("create_timeout_policy", {"host": HOST, "timeout": "2"}, "timeout"),
    ],
)
def test_wrong_arguments_are_refused_by_their_names(
    manager: MeshPolicyManager, method: str, arguments: dict[str, Any], argument: str
) -> None:
    call = arguments if "service_policy" in arguments else {"name": "web", "namespace": "shop", **arguments}

    with pytest.raises(ValueError, match=rf"^{argument}: "):
        getattr(manager, method)(**call)


@pytest.mark.parametrize(
    ("wrong", "argument"), [({"trust_domain": "A b"}, "trust_domain"), ({"profile": "x"}, "profile")]
)
def test_a_manager_of_no_mesh_is_refused(wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        MeshPolicyManager(**wrong)


NAMED: dict[str, Any] = {"name": "web", "namespace": "shop"}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("create_complete_service_policies", {"service_policy": FULL}),
    ("create_rate_limit_policy", {**NAMED, "selector": {"app": "web"}, "requests_per_second": 10}),
    ("create_jwt_authentication", {**NAMED, "issuer": ISSUER}),
    ("create_traffic_policy", {**NAMED, "host": HOST}),
    ("create_circuit_breaker_policy", {**NAMED, "host": HOST}),
    ("create_load_balancing_policy", {**NAMED, "host": HOST}),
    ("create_retry_policy", {**NAMED, "host": HOST}),
    ("create_timeout_policy", {**NAMED, "host": HOST, "timeout": 1}),
]


@pytest.mark.parametrize(("method", "call"), CALLS)
def test_anything_for_an_argument_is_taken_rightly_or_refused_by_its_name(method: str, call: dict[str, Any]) -> None:
    build = getattr(MeshPolicyManager(), method)

    @settings(max_examples=40)
    @given(st.sampled_from(list(inspect.signature(build).parameters)), JUNK)
    def check(argument: str, junk: object) -> None:
        made = taken_or_refused(build, call, argument, junk)
        if made is not None:
            assert_good(*([made] if isinstance(made, dict) else made))

    check()
