"""What is found of manifests and policies in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.checks import manifests
from cli.checks.findings import Finding
from control.folder import read_text
from mesh.documents import to_yaml
from mesh.errors import UserError
from tests.cli.checks.rig import FAILURE, PASS, SKIPPED, WARNING, found

CHECKS = manifests.CHECKS


def judged(name: str, *resources: dict[str, Any] | str) -> Finding:
    text = "---\n".join(one if isinstance(one, str) else to_yaml(one).removeprefix("---\n") for one in resources)
    facts = manifests.facts_of(read_text(text.encode(), "a.yaml"), "shop", "qbitel-system")
    return found(CHECKS, name, facts)


def deployment(name: str = "web", annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "web", "image": "example.org/web:1", **spec.pop("container", {})}
    template = {"metadata": {"annotations": annotations or {}}, "spec": {"containers": [container], **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {}, "template": template},
    }


def namespace(**labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}


GOOD = deployment(
    serviceAccountName="web",
    container={"ports": [{"name": "http", "containerPort": 80}], "readinessProbe": {"httpGet": {"port": "http"}}},
)
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
POLICY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": "shop"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_good_files_pass(name: str) -> None:
    assert judged(name, namespace(**{"qbitel-injection": "enabled"}), GOOD, SERVICE, POLICY).status is PASS


def test_what_cannot_be_read_and_what_is_empty_is_a_failure() -> None:
    assert judged("files-readable", "a: [").status is FAILURE
    assert judged("files-readable", "").status is FAILURE


@pytest.mark.parametrize("name", ["files-injected", "files-policies", "files-ports", "files-namespaces", "files-user"])
def test_what_the_files_have_not_is_skipped(name: str) -> None:
    assert judged(name, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n").status is SKIPPED


def test_a_pod_that_would_be_refused_is_a_failure_with_its_place() -> None:
    bad = deployment(securityContext={"runAsUser": 2102})
    one = judged("files-refused", bad)
    assert one.status is FAILURE
    assert one.items[0].startswith("a.yaml:1: deployment/web: ")
    assert judged("files-user", bad).status is FAILURE
    unreadable = deployment(annotations={"qbitel.io/proxy-cpu": "much"})
    assert judged("files-refused", unreadable).status is FAILURE


def test_a_mesh_that_nobody_is_in_is_a_warning() -> None:
    assert judged("files-injected", namespace(**{"qbitel-injection": "disabled"}), GOOD).status is WARNING


def test_an_annotation_that_nobody_knows_is_a_warning() -> None:
    one = judged("files-annotations", deployment(annotations={"qbitel.io/excludeInboundPorts": "1"}))
    assert (one.status, "do you mean" in one.items[0]) == (WARNING, True)


def test_a_probe_asks_a_port_that_is_there() -> None:
    probe = {"livenessProbe": {"httpGet": {"port": "web"}}}
    assert judged("files-probes", deployment(container=probe)).status is FAILURE
    probe = {"livenessProbe": {"tcpSocket": {"port": 81}}, "ports": [{"containerPort": 80}]}
    assert judged("files-probes", deployment(container=probe)).status is WARNING


def test_the_host_s_network_is_a_warning() -> None:
    assert judged("files-host-network", deployment(hostNetwork=True)).status is WARNING


@pytest.mark.parametrize(
    "labels",
    [
        {"qbitel-injection": "true"},
        {"qbitel-injection": "enabled", "pod-security.kubernetes.io/enforce": "restricted"},
        {"qbitel-injection": "enabled", "istio-injection": "enabled"},
    ],
)
def test_a_namespace_that_cannot_have_the_mesh_is_a_failure(labels: dict[str, str]) -> None:
    assert judged("files-namespaces", namespace(**labels)).status is FAILURE


def test_a_policy_with_an_error_is_a_failure() -> None:
    bad = {**POLICY, "spec": {"mtls": {"mode": "MAYBE"}}}
    assert judged("files-policies", bad).status is FAILURE


def test_what_is_left_of_istio_is_told() -> None:
    gateway = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "a"}, "spec": {}}
    asking = deployment(annotations={"sidecar.istio.io/inject": "true"})
    one = judged("files-other-meshes", namespace(**{"istio-injection": "enabled"}), gateway, asking)
    assert (one.status, len(one.items)) == (WARNING, 3)


def test_workloads_that_share_an_account_and_odd_ports_are_warnings() -> None:
    assert judged("files-accounts", deployment("a"), deployment("b")).status is WARNING
    odd = {**SERVICE, "spec": {"ports": [{"port": 5432, "name": "http"}]}}
    assert judged("files-ports", odd).status is WARNING


def test_folders_and_files_are_read_and_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yaml").write_text(to_yaml(GOOD))
    facts = manifests.read([str(tmp_path)], [], control_namespace="qbitel-system")
    assert [(one.kind, one.namespace) for one in facts.pods] == [("Deployment", "default")]
    with pytest.raises(UserError, match="does not exist"):
        manifests.read([str(tmp_path / "none")], [], control_namespace="qbitel-system")


@given(st.binary(max_size=300))
def test_no_file_is_too_strange(text: bytes) -> None:
    facts = manifests.facts_of(read_text(text, "a"), "shop", "qbitel-system")
    assert len([check.run(facts) for check in CHECKS]) == len(CHECKS)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_files_are_judged_all_the_same(place: int, value: int) -> None:
    text = bytearray("---\n".join(to_yaml(one).removeprefix("---\n") for one in (GOOD, SERVICE, POLICY)).encode())
    place %= len(text)
    text[place] = value
    for damaged in (bytes(text), bytes(text[:place])):
        facts = manifests.facts_of(read_text(damaged, "a"), "shop", "qbitel-system")
        assert len([check.run(facts) for check in CHECKS]) == len(CHECKS)
