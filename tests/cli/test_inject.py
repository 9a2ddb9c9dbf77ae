"""`qbitel inject` as a command: manifests in and out, explanations, errors in one line."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cli.main import main as qbitel
from init.config import InterceptionConfig, parse_ports
from init.script import render_script

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web   # the shop
spec:
  template:
    metadata:
      annotations:
        qbitel.io/exclude-inbound-ports: "22"
    spec:
      containers:
      - name: web
        image: example.org/web:1
"""
HOST = """\
apiVersion: v1
kind: Pod
metadata: {name: node, namespace: shop}
spec:
  hostNetwork: true
  containers: [{name: node, image: example.org/node}]
"""
REFUSED = DEPLOYMENT.replace(
    "spec:\n      containers", "spec:\n      securityContext: {runAsUser: 2102}\n      containers"
)


@pytest.fixture
def web(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text(DEPLOYMENT)
    return path


def pod_of(text: str) -> dict[str, Any]:
    template: dict[str, Any] = yaml.safe_load(text)["spec"]["template"]
    return template


def test_the_rules_in_the_pod_are_those_of_qbitel_init(web: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert qbitel(["inject", "-f", str(web)]) == 0

    first, _ = pod_of(capfdbinary.readouterr().out.decode())["spec"]["initContainers"]
    wanted = InterceptionConfig(exclude_inbound_ports=parse_ports("--exclude-inbound-ports", "22"))
    assert first["command"] == ["/bin/sh", "-c", render_script(wanted)]


def test_the_installation_s_flags_reach_the_pod(web: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    flags = {
        "--image": "registry.example.org/sidecar:9",
        "--pull-policy": "Never",
        "--cpu-request": "150m",
        "--memory-limit": "1Gi",
        "--authority": "ca.example.org:15012",
        "--trust-domain": "example.org",
        "--mtls-mode": "PERMISSIVE",
        "--profile": "hybrid-l5",
        "--mesh": "10.0.0.0/8",
        "--proxy-log-level": "debug",
    }

    assert qbitel(["inject", "-f", str(web), *(word for pair in flags.items() for word in pair)]) == 0

    text = capfdbinary.readouterr().out.decode()
    _, sidecar = pod_of(text)["spec"]["initContainers"]
    assert [value for value in flags.values() if value not in yaml.safe_dump(sidecar)] == []


@pytest.mark.parametrize(("version", "place"), [("1.28", "containers"), ("v1.29.0", "initContainers")])
def test_the_cluster_s_version_says_where_the_sidecar_stands(
    web: Path, version: str, place: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert qbitel(["inject", "-f", str(web), "--kubernetes-version", version]) == 0

    spec = pod_of(capfdbinary.readouterr().out.decode())["spec"]
    assert "qbitel-proxy" in [one["name"] for one in spec[place]]


def test_several_files_become_one_text_of_documents(
    web: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    other = tmp_path / "service.yaml"
    other.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: web}")

    assert qbitel(["inject", "-f", str(other), "-f", str(web), "-f", str(other)]) == 0

    kinds = [document["kind"] for document in yaml.safe_load_all(capfdbinary.readouterr().out)]
    assert kinds == ["Service", "Deployment", "Service"]


def test_standard_input_is_a_file_too(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(DEPLOYMENT.encode())))

    assert qbitel(["inject", "-f", "-"]) == 0

    assert b"qbitel-proxy" in capfdbinary.readouterr().out


def test_nothing_is_written_when_one_pod_is_refused(
    web: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("# first\n" + REFUSED)

    assert qbitel(["inject", "-f", str(web), "-f", str(bad)]) == 2

    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"qbitel inject: {bad}:2: deployment/web: its container web runs as UID 2102")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "a: 1\na: 2\n"])
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(text)

    assert qbitel(["inject", "-f", str(bad)]) == 2

    captured = capfd.readouterr()
    assert captured.err.startswith(f"qbitel inject: {bad}:")
    assert captured.err.count("\n") == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert qbitel(["inject", "-f", str(tmp_path / "none")]) == 2
    assert capfd.readouterr().err == f"qbitel inject: {tmp_path}/none: No such file or directory\n"


def test_warnings_are_lines_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(HOST)

    assert qbitel(["inject", "-f", str(path)]) == 0

    captured = capfd.readouterr()
    assert captured.out == HOST
    assert captured.err.startswith("qbitel inject: pod/node: no sidecar: it is in the host's network")


def test_a_document_that_lost_its_comments_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(
        DEPLOYMENT.replace("  name: web   # the shop", "  name: web\n  annotations: &notes {a: b}").replace(
            'annotations:\n        qbitel.io/exclude-inbound-ports: "22"', "annotations: *notes"
        )
    )

    assert qbitel(["inject", "-f", str(path)]) == 0

    assert "Deployment web is written anew, without its comments" in capfd.readouterr().err


def test_explain_says_who_decided_and_writes_no_manifest(
    web: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(HOST)

    assert qbitel(["inject", "--explain", "-f", str(web), "-f", str(path)]) == 0

    text = capfd.readouterr().out
    assert text.startswith("deployment/web: gets a sidecar: its namespace has the label qbitel-injection=enabled\n")
    assert "pod/node: gets no sidecar: it is in the host's network" in text
    assert "apiVersion" not in text


def test_explain_knows_the_namespaces_that_the_installation_excludes(
    web: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert qbitel(["inject", "--explain", "-f", str(web), "--namespace", "pay", "--exclude-namespace", "pay"]) == 0

    reason = "pods of the namespace pay never get a sidecar: this installation excludes it"
    assert capfd.readouterr().out.startswith(f"deployment/web: gets no sidecar: {reason}\n")


def test_explain_says_what_is_refused_by_its_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(REFUSED)

    assert qbitel(["inject", "--explain", "-f", str(path)]) == 1
    assert capfd.readouterr().out.startswith("deployment/web: is refused: its container web runs as UID 2102")


@pytest.mark.parametrize(
    "flags",
    [["--kubernetes-version", "new"], ["--image", ""], ["--mesh", "ten"], ["--cpu-request", "9"], ["--profile", "x"]],
)
def test_a_flag_that_cannot_be_is_refused_in_one_line(
    web: Path, flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert qbitel(["inject", "-f", str(web), *flags]) == 2
    assert capfd.readouterr().err.count("\n") == 1
