"""The documented snippets about certificates, run as written and in their order, each on top of the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_engine.cloud_native.service_mesh import istio

GENERATE = """
from ai_engine.cloud_native.service_mesh.istio import QuantumCertificateManager

# Initialize certificate manager
cert_manager = QuantumCertificateManager()

# Generate root CA
root_ca = cert_manager.generate_root_ca(
    subject="CN=QBITEL Root CA,O=QBITEL,C=US",
    validity_years=10
)

# Generate service certificate
service_cert = cert_manager.generate_service_certificate(
    service_name="my-service",
    namespace="default",
    ca_cert=root_ca,
    ca_private_key=root_ca["private_key_pem"]
)

# Create Kubernetes secret
secret = cert_manager.create_kubernetes_secret(
    cert_data=service_cert,
    secret_name="my-service-certs",
    namespace="default"
)
"""
CONFIGURE = """
from ai_engine.cloud_native.service_mesh.istio import (
    QuantumCertificateManager,
    CertificateAlgorithm
)

cert_mgr = QuantumCertificateManager(
    key_algorithm=CertificateAlgorithm.KYBER_1024,
    signature_algorithm=CertificateAlgorithm.DILITHIUM_5,
    cert_validity_days=90,
    rotation_threshold_days=30,
    auto_rotation=True
)
"""
TROUBLESHOOT = """
cert_data = cert_manager.get_certificate("my-service", "default")
needs_rotation = cert_manager.check_rotation_needed(cert_data)
"""


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What stands in a session after each snippet has run in it."""
    session: dict[str, Any] = {}
    for snippet in (GENERATE, CONFIGURE, TROUBLESHOOT):
        exec(snippet, session)  # noqa: S102  # the snippets are the test
    return session


def test_the_snippets_make_a_secret_that_json_takes(names: dict[str, Any]) -> None:
    assert json.loads(json.dumps(names["secret"])) == names["secret"]
    assert set(names["secret"]["data"]) == {"tls.crt", "tls.key", "ca.crt", "kem.crt", "kem.key"}


def test_the_root_says_what_was_asked_for(names: dict[str, Any]) -> None:
    assert set(names["root_ca"]["subject"].split(",")) == {"CN=QBITEL Root CA", "O=QBITEL", "C=US"}
    years = int(names["root_ca"]["not_after"][:4]) - int(names["root_ca"]["not_before"][:4])
    assert years in (9, 10)  # ten years of 365.25 days can end on a 31 December


def test_troubleshooting_finds_the_certificate_and_that_it_is_not_due(names: dict[str, Any]) -> None:
    assert names["cert_data"] == names["service_cert"]
    assert names["needs_rotation"] is False


def test_the_configured_manager_uses_the_standards_algorithms(names: dict[str, Any]) -> None:
    assert (names["cert_mgr"].key_algorithm, names["cert_mgr"].signature_algorithm) == ("ml-kem-1024", "ml-dsa-87")


def test_every_promised_name_is_there() -> None:
    assert [name for name in istio.__all__ if not hasattr(istio, name)] == []
