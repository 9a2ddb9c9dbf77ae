"""ServicePolicy: what is asked of a service, checked as soon as it is said."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.policy_manager import MeshPolicyManager
from control.service_policy import ServicePolicy
from mesh.building.traffic_policy import ConnectionPool
from mesh.building.virtual_service import Retries
from tests.support.built import assert_good
from tests.support.junk import JUNK, taken_or_refused

ISSUER = "https://auth.example.com"


def test_a_policy_that_says_little_lets_nobody_in() -> None:
    policy = ServicePolicy("web")

    assert policy.namespace == "default"
    assert policy.allowed_sources == ()
    assert policy.allowed_operations is None
    assert policy.require_mtls
    assert not policy.require_jwt
    assert policy.pod_labels == {"app": "web"}
    assert policy.host == "web.default.svc.cluster.local"
    assert policy.jwt_rule is None


def test_a_policy_stays_what_it_was_when_its_arguments_change() -> None:
    sources, labels = ["frontend"], {"app": "web"}
    policy = ServicePolicy("web", "shop", sources, ["GET"], selector=labels)
    sources.append("other")
    labels["app"] = "other"

    assert policy.allowed_sources == ("frontend",)
    assert policy.allowed_operations == ("GET",)
    assert policy.pod_labels == {"app": "web"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.namespace = "other"  # type: ignore[misc]


def test_a_policy_can_be_copied_compared_and_changed_into_another() -> None:
    policy = ServicePolicy("web", "shop", ["frontend"], require_jwt=True, jwt_issuer=ISSUER, retries=Retries(2))

    assert copy.deepcopy(policy) == policy
    assert dataclasses.replace(policy, rate_limit=10).rate_limit == 10
    with pytest.raises(ValueError, match=r"^rate_limit: "):
        dataclasses.replace(policy, rate_limit=-1)


def test_the_issuer_of_tokens_is_a_rule() -> None:
    policy = ServicePolicy(
        "web", require_jwt=True, jwt_issuer=ISSUER, jwt_jwks_uri=f"{ISSUER}/keys", jwt_audiences=["api"]
    )

    assert policy.jwt_rule is not None
    assert policy.jwt_rule.as_dict() == {"issuer": ISSUER, "jwksUri": f"{ISSUER}/keys", "audiences": ["api"]}


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"service_name": "Web"}, "service_name"),
        ({"service_name": "web.shop"}, "service_name"),
        ({"namespace": "a/b"}, "namespace"),
        ({"allowed_sources": "frontend"}, "allowed_sources"),
        ({"allowed_sources": None}, "allowed_sources"),
        ({"allowed_sources": ["front end"]}, r"allowed_sources\[0\]"),
        ({"allowed_operations": []}, "allowed_operations"),
        ({"allowed_operations": "GET"}, "allowed_operations"),
        ({"allowed_operations": ["GET", "post"]}, r"allowed_operations\[1\]"),
        ({"require_mtls": "yes"}, "require_mtls"),
        ({"require_jwt": None}, "require_jwt"),
        ({"rate_limit": 0}, "rate_limit"),
        ({"rate_limit": -100}, "rate_limit"),
        ({"rate_limit": "100"}, "rate_limit"),
        ({"rate_limit_burst": 10}, "rate_limit_burst"),
        ({"rate_limit": 10, "rate_limit_burst": 0}, "rate_limit_burst"),
        ({"rate_limit": 1000, "rate_limit_burst": 1}, "rate_limit_burst"),
        ({"jwt_issuer": ISSUER}, "jwt_issuer"),
        ({"jwt_issuer": "", "require_jwt": True}, "jwt_issuer"),
        ({"jwt_issuer": "https://*", "require_jwt": True}, "jwt_issuer"),
        ({"jwt_jwks_uri": ISSUER, "require_jwt": True}, "jwt_jwks_uri"),
        ({"jwt_audiences": ["api"], "require_jwt": True}, "jwt_audiences"),
        ({"jwt_issuer": ISSUER, "require_jwt": True, "jwt_jwks_uri": "x"}, "jwt_jwks_uri"),
        ({"jwt_issuer": ISSUER, "require_jwt": True, "jwt_audiences": "api"}, "jwt_audiences"),
        ({"connection_pool": {"max_connections": 1}}, "connection_pool"),
        ({"outlier_detection": ConnectionPool()}, "outlier_detection"),
        ({"load_balancer": "RANDOM"}, "load_balancer"),
        ({"retries": 3}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"selector": {}}, "selector"),
        ({"selector": "app=web"}, "selector"),
    ],
)
def test_a_wrong_field_is_named_at_once(wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        ServicePolicy(**{"service_name": "web"} | wrong)


@settings(max_examples=100)
@given(st.sampled_from(list(inspect.signature(ServicePolicy).parameters)), JUNK)
def test_anything_for_a_field_is_taken_rightly_or_refused_by_its_name(field: str, junk: object) -> None:
    call = {"service_name": "web", "require_jwt": True, "jwt_issuer": ISSUER, "rate_limit": 5, "rate_limit_burst": 10}
    policy = taken_or_refused(ServicePolicy, call, field, junk)

    if policy is not None:
        assert_good(*MeshPolicyManager().create_complete_service_policies(policy))
