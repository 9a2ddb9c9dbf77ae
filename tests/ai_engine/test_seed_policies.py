"""The documented snippets about policies, run as written and in their order, each on top of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ai_engine.cloud_native.service_mesh import istio
from tests.support.built import assert_good, assert_valid

CONFIGURE = """
from ai_engine.cloud_native.service_mesh.istio import (
    MutualTLSConfigurator,
    MTLSMode
)

# Initialize configurator
mtls_config = MutualTLSConfigurator(default_mode=MTLSMode.STRICT)

# Create mesh-wide mTLS
mesh_mtls = mtls_config.create_mesh_wide_mtls(mode=MTLSMode.STRICT)

# Create namespace-specific mTLS
namespace_mtls = mtls_config.create_namespace_mtls(
    namespace="production",
    mode=MTLSMode.STRICT
)

# Create zero-trust policies
zero_trust = mtls_config.create_zero_trust_policy(
    namespace="production",
    allowed_services=["frontend", "backend", "database"]
)
"""
SERVICE = """
from ai_engine.cloud_native.service_mesh.istio import (
    MeshPolicyManager,
    ServicePolicy
)

# Initialize policy manager
policy_mgr = MeshPolicyManager()

# Define service policy
service_policy = ServicePolicy(
    service_name="payment-service",
    namespace="default",
    allowed_sources=["frontend", "order-service"],
    allowed_operations=["POST", "GET"],
    require_mtls=True,
    require_jwt=True,
    rate_limit=100  # 100 req/s
)

# Create all policies for the service
policies = policy_mgr.create_complete_service_policies(service_policy)
"""
MICROSERVICES = """
from ai_engine.cloud_native.service_mesh.istio import (
    MutualTLSConfigurator,
    MTLSMode
)

# Create strict mTLS for production namespace
mtls = MutualTLSConfigurator()

# 1. Namespace-wide strict mTLS
ns_mtls = mtls.create_namespace_mtls(
    namespace="production",
    mode=MTLSMode.STRICT
)

# 2. Destination rule for service mesh traffic
dest_rule = mtls.create_destination_rule(
    name="backend-mtls",
    host="backend.production.svc.cluster.local",
    namespace="production",
    enable_quantum_tls=True
)

# 3. Authorization policy
auth_policy = mtls.create_authorization_policy(
    name="backend-authz",
    namespace="production",
    action="ALLOW",
    rules=[
        {
            "from": [{
                "source": {
                    "principals": [
                        "cluster.local/ns/production/sa/frontend"
                    ]
                }
            }],
            "to": [{
                "operation": {
                    "methods": ["GET", "POST"]
                }
            }]
        }
    ]
)
backend_authz = auth_policy
"""
RATE_LIMITED = """
from ai_engine.cloud_native.service_mesh.istio import MeshPolicyManager

policy_mgr = MeshPolicyManager()

# Create rate limit: 1000 req/s with 2000 burst
rate_limit = policy_mgr.create_rate_limit_policy(
    name="api-gateway",
    namespace="default",
    selector={"app": "api-gateway"},
    requests_per_second=1000,
    burst=2000
)
"""
JWT = """
# Create JWT authentication for API
jwt_auth = policy_mgr.create_jwt_authentication(
    name="api-jwt",
    namespace="default",
    issuer="https://auth.example.com",
    jwks_uri="https://auth.example.com/.well-known/jwks.json",
    audiences=["api.example.com"]
)

# Require JWT for specific service
auth_policy = mtls.create_authorization_policy(
    name="require-jwt",
    namespace="default",
    action="ALLOW",
    rules=[
        {
            "from": [{
                "source": {
                    "requestPrincipals": ["*"]
                }
            }]
        }
    ],
    selector={"app": "secure-api"}
)
"""
TROUBLESHOOT = """
result = mtls_config.verify_mtls_configuration(
    source_service="frontend",
    dest_service="backend",
    namespace="default"
)
print(result)
"""
SNIPPETS = (CONFIGURE, SERVICE, MICROSERVICES, RATE_LIMITED, JWT, TROUBLESHOOT)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What stands in a session after each snippet has run in it."""
    session: dict[str, Any] = {}
    for snippet in SNIPPETS:
        exec(snippet, session)  # noqa: S102  # the snippets are the test
    return session


@pytest.fixture
def resources(names: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything that the snippets made."""
    single = (
        "mesh_mtls",
        "namespace_mtls",
        "ns_mtls",
        "dest_rule",
        "backend_authz",
        "rate_limit",
        "jwt_auth",
        "auth_policy",
    )
    return [*(names[name] for name in single), *names["zero_trust"], *names["policies"]]


def test_all_that_the_snippets_make_is_plain_data_that_our_reader_takes(resources: list[dict[str, Any]]) -> None:
    for resource in resources:
        assert_good(resource)


def test_all_that_the_snippets_make_is_valid_by_istio_s_schemas(resources: list[dict[str, Any]]) -> None:
    assert_valid(*resources)


def test_the_modes_are_those_asked_for(names: dict[str, Any]) -> None:
    for name, namespace in (("mesh_mtls", "istio-system"), ("namespace_mtls", "production"), ("ns_mtls", "production")):
        assert names[name]["kind"] == "PeerAuthentication"
        assert names[name]["metadata"]["namespace"] == namespace
        assert names[name]["spec"] == {"mtls": {"mode": "STRICT"}}


def test_zero_trust_is_an_empty_deny_and_one_allow_for_each_service(names: dict[str, Any]) -> None:
    deny, *allows = names["zero_trust"]

    assert deny["spec"] == {}
    assert [allow["spec"]["action"] for allow in allows] == ["ALLOW"] * 3
    assert [allow["spec"]["selector"]["matchLabels"]["app"] for allow in allows] == ["frontend", "backend", "database"]


def test_a_service_has_the_policies_that_it_asked_for(names: dict[str, Any]) -> None:
    assert [policy["kind"] for policy in names["policies"]] == [
        "PeerAuthentication",
        "AuthorizationPolicy",
        "EnvoyFilter",
    ]


def test_the_list_of_policies_is_one_text_for_kubectl(names: dict[str, Any]) -> None:
    text = istio.to_yaml(names["policies"])

    assert list(yaml.safe_load_all(text)) == names["policies"]
    assert text.count("\n---\n") == len(names["policies"]) - 1


def test_the_rate_is_a_token_bucket_with_the_burst_as_its_size(names: dict[str, Any]) -> None:
    (patch,) = names["rate_limit"]["spec"]["configPatches"]

    assert patch["patch"]["value"]["typed_config"]["token_bucket"] == {
        "max_tokens": 2000,
        "tokens_per_fill": 1000,
        "fill_interval": "1s",
    }


def test_troubleshooting_says_what_would_happen(capsys: pytest.CaptureFixture[str]) -> None:
    session: dict[str, Any] = {}
    for snippet in (CONFIGURE, TROUBLESHOOT):
        exec(snippet, session)  # noqa: S102  # the snippets are the test
    printed = capsys.readouterr().out

    assert printed == f"{session['result']}\n"
    assert "default/frontend" in printed
    assert "STRICT" in printed
    assert session["result"]["secure"] is True


def test_every_promised_name_is_there() -> None:
    promised = {"MutualTLSConfigurator", "MTLSMode", "MeshPolicyManager", "ServicePolicy"}

    assert promised <= set(istio.__all__)
    assert [name for name in istio.__all__ if not hasattr(istio, name)] == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: istio.MutualTLSConfigurator().create_namespace_mtls(namespace="Prod"),
        lambda: istio.ServicePolicy(service_name="payment", rate_limit=-1),
        lambda: istio.MeshPolicyManager().create_rate_limit_policy("a", "b", {"app": "c"}, requests_per_second=-5),
    ],
)
def test_what_cannot_work_is_refused_at_once(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"^(namespace|rate_limit|requests_per_second): .* give "):
        call()
