"""What written, given and found resources come to together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from control.configurator import MutualTLSConfigurator
from mesh.documents import to_yaml
from mesh.errors import UserError
from mesh.modes import MTLSMode

HOST = "backend.production.svc.cluster.local"


def verified(configurator: MutualTLSConfigurator, **more: Any) -> Any:
    return configurator.verify_mtls_configuration("frontend", "backend", "production", **more)


@pytest.fixture
def configurator() -> MutualTLSConfigurator:
    found = MutualTLSConfigurator()
    found.create_namespace_mtls("production")
    found.create_zero_trust_policy("production", ["frontend", "backend"])
    return found


def test_the_answer_is_data_and_prints_as_text(configurator: MutualTLSConfigurator) -> None:
    result = verified(configurator)

    assert json.loads(json.dumps(result)) == result
    assert result["allowed"] is True
    assert result["secure"] is True
    assert result["problems"] == []
    assert "production/frontend" in str(result).splitlines()[0]
    assert not str(result).startswith("{")


def test_who_is_not_named_is_not_allowed(configurator: MutualTLSConfigurator) -> None:
    result = configurator.verify_mtls_configuration("stranger", "backend", "production")

    assert result["allowed"] is False


def test_services_of_two_namespaces_are_told_apart(configurator: MutualTLSConfigurator) -> None:
    elsewhere = configurator.verify_mtls_configuration("frontend", "backend", "staging", dest_namespace="production")

    assert elsewhere["allowed"] is False
    assert "cluster.local/ns/staging/sa/frontend" in str(elsewhere)


def test_a_rule_that_contradicts_the_server_is_told(configurator: MutualTLSConfigurator) -> None:
    configurator.create_destination_rule("backend", HOST, "production", False, tls_mode="DISABLE")
    result = verified(configurator)

    assert result["allowed"] is False
    assert any(conflict["severity"] == "error" for conflict in result["conflicts"])


def test_given_resources_count_before_written_ones_and_those_before_files(
    configurator: MutualTLSConfigurator, tmp_path: Path
) -> None:
    other = MutualTLSConfigurator()
    open_to_all = other.create_namespace_mtls("production", MTLSMode.DISABLE)
    (tmp_path / "modes.yaml").write_text(to_yaml(open_to_all))

    assert verified(configurator, path=tmp_path)["secure"] is True
    assert verified(configurator, path=tmp_path, resources=[open_to_all])["secure"] is False
    assert verified(MutualTLSConfigurator(), path=str(tmp_path))["secure"] is False


def test_what_cannot_be_read_is_among_the_problems(configurator: MutualTLSConfigurator, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: [}\n")
    given = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "a", "namespace": "production"},
        "spec": {"mtls": {"mode": "STRONG"}},
    }
    result = verified(configurator, path=file, resources=[given])

    assert any("broken.yaml" in problem for problem in result["problems"])
    assert any("STRONG" in problem for problem in result["problems"])
    assert "broken.yaml" in str(result)


def test_a_folder_that_is_not_there_is_the_user_s_error(configurator: MutualTLSConfigurator, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist"):
        verified(configurator, path=tmp_path / "nowhere")


@pytest.mark.parametrize("given", [[1], ["x"], [{"a": {1, 2}}], [{"a": float("nan")}], [None]])
def test_what_is_no_resource_is_refused(configurator: MutualTLSConfigurator, given: Any) -> None:
    with pytest.raises(ValueError, match=r"^resources\[0\]: "):
        verified(configurator, resources=given)


def test_one_resource_may_be_given_as_it_is(configurator: MutualTLSConfigurator) -> None:
    given = MutualTLSConfigurator().create_namespace_mtls("production", "DISABLE")

    assert verified(configurator, resources=given)["secure"] is False


def test_a_cluster_that_cannot_be_asked_is_the_user_s_error(
    configurator: MutualTLSConfigurator, tmp_path: Path
) -> None:
    pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

    with pytest.raises(UserError):
        verified(configurator, kubeconfig=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^kubeconfig: "):
        verified(configurator, kubeconfig="")


def test_what_a_cluster_has_counts_least(tmp_path: Path) -> None:
    pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")
    from tests.control.test_cluster import Server

    server = Server(tmp_path)
    try:
        server.put("peerauthentications", "production", "default", spec={"mtls": {"mode": "DISABLE"}})
        alone = verified(MutualTLSConfigurator(), kubeconfig=server.kubeconfig)
        configurator = MutualTLSConfigurator()
        configurator.create_namespace_mtls("production", "STRICT")
        together = verified(configurator, kubeconfig=server.kubeconfig)
    finally:
        server.close()

    assert (alone["secure"], together["secure"]) == (False, True)
