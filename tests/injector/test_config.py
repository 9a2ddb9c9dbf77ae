"""What an installation gives its pods."""

from __future__ import annotations

from typing import Any

import pytest

from injector.config import InjectorConfig, SidecarConfig, native_sidecars_in
from mesh.errors import UserError


def test_the_defaults_are_the_documented_ones() -> None:
    config = SidecarConfig()

    assert config.image == "qbitel/quantum-sidecar:latest"
    assert (config.cpu_request, config.memory_request) == ("100m", "128Mi")
    assert (config.cpu_limit, config.memory_limit) == ("500m", "512Mi")


@pytest.mark.parametrize("name", ["kyber-1024", "ml-kem-1024", "ML-KEM-1024", "Kyber-1024"])
def test_the_key_exchange_has_an_old_and_a_new_name(name: str) -> None:
    assert SidecarConfig(quantum_algorithm=name).quantum_algorithm == name


@pytest.mark.parametrize(
    "settings",
    [
        {"image": ""},
        {"image": "two words"},
        {"cpu_request": "much"},
        {"cpu_request": "1", "cpu_limit": "500m"},
        {"memory_request": "1Gi"},
        {"quantum_algorithm": "kyber-512"},
        {"signature_algorithm": "rsa"},
        {"metrics_port": 0},
        {"metrics_port": 15021},
        {"proxy_port": 70000},
        {"proxy_port": 15090},
        {"proxy_port": 15090, "metrics_port": 16090},
        {"proxy_port": 15020},
    ],
)
def test_a_sidecar_that_could_not_run_is_refused_in_one_line(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refused:
        SidecarConfig(**settings)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "settings", [{"trust_domain": "A B"}, {"profile": "tls12"}, {"log_level": "loud"}, {"pull_policy": "sometimes"}]
)
def test_an_installation_that_could_not_work_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        InjectorConfig(**settings)


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "kube-node-lease", "local-path-storage", "mine"])
def test_the_cluster_s_and_our_own_namespaces_are_ignored(namespace: str) -> None:
    assert InjectorConfig(control_namespace="mine").is_ignored(namespace)


def test_other_namespaces_are_not_ignored() -> None:
    assert not InjectorConfig().is_ignored("shop")


@pytest.mark.parametrize(
    ("version", "native"),
    [("1.28", False), ("1.29", True), ("v1.31.4", True), ("1.9", False), ("2.0", True), ("v1.20.2-x", False)],
)
def test_native_sidecars_come_with_kubernetes_1_29(version: str, native: bool) -> None:
    assert native_sidecars_in(version) is native


@pytest.mark.parametrize("version", ["", "1", "new", "1.x", "-1.2", "1.99999"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(UserError, match="is no version of Kubernetes"):
        native_sidecars_in(version)
