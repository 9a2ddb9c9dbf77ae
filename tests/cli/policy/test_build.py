"""`qbitel policy build`: what is written is what the API writes, and is good by our own reading."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from control.configurator import MutualTLSConfigurator
from control.policy_manager import MeshPolicyManager
from mesh.documents import read_documents
from mesh.resources import ResourceSet
from tests.cli.policy.conftest import Policy

MTLS = MutualTLSConfigurator()
MANAGER = MeshPolicyManager()
ZERO_TRUST = MTLS.create_zero_trust_policy("production", ["frontend", "backend"])


def written(text: str) -> list[Any]:
    """The resources of a text, which hold no error."""
    documents, problems = read_documents(text.encode(), "built")
    assert problems == ()
    assert ResourceSet.of(documents).errors == ()
    return [document.value for document in documents]


@pytest.mark.parametrize(
    ("arguments", "resources"),
    [
        ("mtls", [MTLS.create_mesh_wide_mtls()]),
        ("mtls --namespace production --mode PERMISSIVE", [MTLS.create_namespace_mtls("production", "PERMISSIVE")]),
        (
            "mtls -n production --name web --selector app=web --mode UNSET --port 8080=DISABLE",
            [MTLS.create_workload_mtls("web", "production", {"app": "web"}, "UNSET", port_modes={8080: "DISABLE"})],
        ),
        ("zero-trust --namespace production --allow frontend,backend", ZERO_TRUST),
        ("zero-trust -n production --allow frontend --allow backend", ZERO_TRUST),
        (
            "zero-trust -n production --allow web --source shop/batch --health-port 8086 --trust-domain a.org",
            MutualTLSConfigurator(trust_domain="a.org").create_zero_trust_policy(
                "production", ["web"], additional_sources=["shop/batch"], health_ports=[8086]
            ),
        ),
        (
            "destination --name web --host web.shop.svc.cluster.local -n shop --profile cnsa2",
            [MTLS.create_destination_rule("web", "web.shop.svc.cluster.local", "shop", profile="cnsa2")],
        ),
        (
            "destination --name web --host old.example.org --plaintext",
            [MTLS.create_destination_rule("web", "old.example.org", "default", False, tls_mode="DISABLE")],
        ),
        (
            "rate-limit --name api --rate 1000 --burst 2000",
            [MANAGER.create_rate_limit_policy("api", "default", {"app": "api"}, 1000, 2000)],
        ),
        (
            "rate-limit --name api -n shop --selector tier=web --rate 0.5 --port 8080",
            [MANAGER.create_rate_limit_policy("api", "shop", {"tier": "web"}, 0.5, port=8080)],
        ),
        (
            "jwt --name api --issuer https://a.example --jwks-uri https://a.example/keys --audience x --audience y",
            [
                MANAGER.create_jwt_authentication(
                    "api", "default", "https://a.example", "https://a.example/keys", ["x", "y"]
                )
            ],
        ),
    ],
)
def test_a_few_words_write_what_the_api_writes(policy: Policy, arguments: str, resources: list[Any]) -> None:
    words = ("build", *arguments.split())

    assert written(policy.says(0, *words)) == resources
    assert policy.data(0, *words) == {"apiVersion": "v1", "kind": "List", "items": resources}


def test_tokens_can_be_required(policy: Policy) -> None:
    words = "build jwt --name api --issuer https://a.example --require --selector app=api"
    authentication, required = written(policy.says(0, *words.split()))

    assert authentication["kind"] == "RequestAuthentication"
    assert required["metadata"]["name"] == "api-required"
    assert required["spec"] == {
        "selector": {"matchLabels": {"app": "api"}},
        "action": "DENY",
        "rules": [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}],
    }


def test_a_service_is_written_from_its_file(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"service_name: web\nallowed_sources: [front]\n---\nservice_name: db\nrate_limit: 5\n"
    (tmp_path / "services.yaml").write_bytes(text)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(text)))

    output = policy.says(0, "build", "service", "-f", tmp_path / "services.yaml")
    assert [(one["kind"], one["metadata"]["name"]) for one in written(output)] == [
        ("PeerAuthentication", "web"),
        ("AuthorizationPolicy", "web"),
        ("PeerAuthentication", "db"),
        ("AuthorizationPolicy", "db"),
        ("EnvoyFilter", "db"),
    ]
    assert policy.says(0, "build", "service", "-f", "-") == output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("mtls --mode strict", "invalid choice: 'strict'"),
        ("mtls -n istio-system", "is the mesh's root namespace"),
        ("mtls --selector app=web", "give --namespace and --name"),
        ("mtls -n shop --port 80=STRICT", "give their labels by --selector"),
        ("mtls -n shop --name a --selector a=b --port 80=NO", "is not PORT=MODE"),
        ("zero-trust -n shop --allow A", "allowed_services[0]: 'A' is not allowed"),
        ("zero-trust --allow a", "required: -n/--namespace"),
        ("rate-limit --name api --rate -1", "is not allowed; give"),
        ("rate-limit --name api --rate nan", "is not allowed; give"),
        ("rate-limit --name api --rate x", "'x' is no number"),
        ("destination --name web --host a_b", "host: 'a_b' is not allowed"),
        ("service -f /dev/null", "no regular file"),
        ("service -f /", "give a file"),
        ("teapot", "invalid choice: 'teapot'"),
    ],
)
def test_what_cannot_be_is_one_line(policy: Policy, arguments: str, says: str) -> None:
    assert says in policy("build", *arguments.split()).refusal


@pytest.mark.parametrize(
    ("text", "says"), [("", "holds nothing"), ("a: [", ":1: no YAML"), ("x: 1", ":1: x: is no field")]
)
def test_a_file_that_writes_no_policy_is_one_line(policy: Policy, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "service.yaml").write_text(text)

    assert says in policy("build", "service", "-f", tmp_path / "service.yaml").refusal
