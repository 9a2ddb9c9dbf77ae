"""A real API server calls the webhook: what it makes of pods, and that none slips past when the webhook is gone.

QBITEL_WEBHOOK_ADDRESS is an address of this machine at which the API server of KUBECONFIG's cluster reaches it. Nothing
runs: pods are made by --dry-run=server, in a namespace of their own. Everything is deleted again.

Not against an old API server that was built with Go 1.18 or newer and has github.com/modern-go/reflect2 before 1.0.2:
the first JSON patch of any webhook ends such a process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from injector.webhook_configuration import IstioSidecarInjector
from tests.injector.rig import containers, pod
from tests.injector.serving import write_certificate

ADDRESS: Final = os.environ.get("QBITEL_WEBHOOK_ADDRESS", "")
PATIENCE: Final = 120  # seconds, for one answer of a loaded cluster
pytestmark = pytest.mark.skipif(
    not ADDRESS or "KUBECONFIG" not in os.environ or shutil.which("kubectl") is None,
    reason="KUBECONFIG, QBITEL_WEBHOOK_ADDRESS (where its API server reaches this machine) and kubectl are needed",
)


Answer: TypeAlias = subprocess.CompletedProcess[str]


def kubectl(*words: str, given: Any = None) -> Answer:
    return subprocess.run(
        ["kubectl", *words],
        input=None if given is None else json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@dataclasses.dataclass(frozen=True)
class Cluster:
    namespace: str

    def create(self, given: dict[str, Any]) -> Answer:
        """What the API server would make of a pod."""
        flags = ["--dry-run=server", "--validate=false", "-o", "json", "-n", self.namespace]
        return kubectl("create", *flags, "-f", "-", given=given)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A namespace with the mesh's label."""
    name = f"qbitel-test-{uuid.uuid4().hex[:8]}"
    labels = {"qbitel-injection": "enabled", "qbitel-test": name}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    assert kubectl("create", "-f", "-", given=namespace).returncode == 0
    try:
        # The controller makes it; before, no pod of this namespace is taken.
        while kubectl("get", "serviceaccount", "default", "-n", name).returncode != 0:
            assert kubectl("get", "namespace", name).returncode == 0
        yield Cluster(name)
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def webhook(folder: Path, cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
    """The webhook as a process, and the cluster told of it, for the namespace of the test alone."""
    files = write_certificate(folder, ipaddress.ip_address(ADDRESS))
    program = "import sys; from cli.main import main; sys.exit(main())"
    flags = ["--listen", f"{ADDRESS}:0", "--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    flags += ["--metrics", "127.0.0.1:0", "--drain-seconds", "0"]
    command = [sys.executable, "-c", program, "injector", "serve", "--kubernetes-version", "1.28", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            process.stderr.readline()  # where the metrics are
            port = re.search(r"the webhook is on port (\d+)", process.stderr.readline())
            assert port is not None
            configuration = IstioSidecarInjector(webhook_name=cluster.namespace).create_webhook_configuration(
                files.certificate.read_bytes()
            )
            for one in configuration["webhooks"]:
                client = one["clientConfig"]
                client["url"] = f"https://{ADDRESS}:{port[1]}{client.pop('service')['path']}"
                mine = {"key": "qbitel-test", "operator": "In", "values": [cluster.namespace]}
                one["namespaceSelector"]["matchExpressions"].append(mine)
            assert kubectl("create", "-f", "-", given=configuration).returncode == 0
            yield process
        finally:
            kubectl("delete", "mutatingwebhookconfiguration", cluster.namespace)
            process.kill()


def awaited(cluster: Cluster, given: dict[str, Any], has_happened: Callable[[Answer], bool]) -> Answer:
    """What the API server says to a pod, once it has heard of the webhook."""
    for _ in range(PATIENCE):
        if has_happened(done := cluster.create(given)):
            return done
    raise AssertionError(f"the API server never called the webhook: {done.stdout} {done.stderr}")


def test_a_real_api_server_gives_pods_their_sidecar(cluster: Cluster, tmp_path: Path) -> None:
    probed = [{"name": "web", "image": "example.org/web", "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}}]

    with webhook(tmp_path, cluster):
        done = awaited(cluster, pod(containers=probed), lambda one: one.returncode != 0 or "qbitel-proxy" in one.stdout)

    assert done.returncode == 0, done.stderr
    by_name = containers(json.loads(done.stdout))
    assert by_name["web"]["readinessProbe"]["httpGet"]["path"] == "/app-health/web/readyz"
    assert by_name["qbitel-proxy"]["securityContext"]["runAsUser"] == 2102
    assert "QBITEL_INBOUND" in by_name["qbitel-init"]["command"][-1]


def test_a_real_api_server_refuses_warns_and_lets_no_pod_pass_without_the_webhook(
    cluster: Cluster, tmp_path: Path
) -> None:
    with webhook(tmp_path, cluster) as process:
        refused = awaited(cluster, pod(securityContext={"runAsUser": 2102}), lambda one: one.returncode != 0)
        assert "denied the request: its container web runs as UID 2102" in refused.stderr
        opted_out = cluster.create(pod(metadata={"name": "web", "labels": {"qbitel.io/inject": "false"}}))
        assert set(containers(json.loads(opted_out.stdout))) == {"web"}
        warned = cluster.create(pod(hostNetwork=True))
        assert warned.returncode == 0
        assert "Warning: qbitel: no sidecar: it is in the host's network" in warned.stderr

        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        gone = cluster.create(pod())
        assert gone.returncode != 0
        assert "failed calling webhook" in gone.stderr
