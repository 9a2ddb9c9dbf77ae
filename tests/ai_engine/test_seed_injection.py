"""The documented snippets about injection, run as written and in their order, each on top of the others."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ai_engine.cloud_native.service_mesh import istio
from tests.support.kubernetes_schema import problems_of

INSTALL = """
from ai_engine.cloud_native.service_mesh.istio import IstioSidecarInjector

# Initialize injector
injector = IstioSidecarInjector(
    namespace="qbitel-system",
    webhook_name="qbitel-sidecar-injector"
)

# Create webhook configuration
webhook_config = injector.create_webhook_configuration()

# Apply to Kubernetes (using kubectl or client)
# kubectl apply -f webhook_config.yaml
"""
CONFIGURE = """
from ai_engine.cloud_native.service_mesh.istio import SidecarConfig

config = SidecarConfig(
    image="qbitel/quantum-sidecar:latest",
    cpu_request="100m",
    cpu_limit="500m",
    memory_request="128Mi",
    memory_limit="512Mi",
    quantum_algorithm="kyber-1024",
    signature_algorithm="dilithium-5",
    enable_metrics=True,
    metrics_port=15090,
    proxy_port=15001
)
"""


@pytest.fixture(scope="module")
def session() -> dict[str, Any]:
    """What stands in a session after each snippet has run in it."""
    found: dict[str, Any] = {}
    for snippet in (INSTALL, CONFIGURE):
        exec(snippet, found)  # noqa: S102  # the snippets are the test
    return found


def test_the_webhook_s_configuration_can_be_applied(session: dict[str, Any]) -> None:
    configuration = session["webhook_config"]

    assert problems_of(configuration) == []
    assert configuration["metadata"]["name"] == "qbitel-sidecar-injector"
    assert yaml.safe_load(istio.to_yaml(configuration)) == configuration


def test_the_label_of_the_documentation_is_the_one_that_is_selected(session: dict[str, Any]) -> None:
    selectors = [webhook["namespaceSelector"] for webhook in session["webhook_config"]["webhooks"]]

    assert {"key": "qbitel-injection", "operator": "In", "values": ["enabled"]} in selectors[0]["matchExpressions"]


def test_the_documented_configuration_is_the_default_one(session: dict[str, Any]) -> None:
    assert session["config"] == istio.SidecarConfig()


def test_a_configured_sidecar_is_taken_by_the_injector(session: dict[str, Any]) -> None:
    assert istio.IstioSidecarInjector(config=session["config"]).config is session["config"]


def test_every_promised_name_is_there() -> None:
    assert {"IstioSidecarInjector", "SidecarConfig"} <= set(istio.__all__)
    assert [name for name in istio.__all__ if not hasattr(istio, name)] == []
