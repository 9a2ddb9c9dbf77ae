"""What an operator can see of it all with kubectl and qbitel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable

from tests.cluster import cluster
from tests.cluster.conftest import Shop
from tests.cluster.installation import Mesh
from tests.cluster.workloads import meet, summed

_QBITEL = (sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())")


def test_metrics_come_through_a_port_forward(shop: Shop, saw: Callable[[str], None]) -> None:
    meet(shop.client, shop.web.url)
    command = ["kubectl", "port-forward", "-n", shop.namespace, f"pod/{shop.web.pod}", ":15090"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as forwarding:
        try:
            assert forwarding.stdout is not None
            line = forwarding.stdout.readline()
            port = re.search(r"127\.0\.0\.1:(\d+) -> 15090", line)
            assert port is not None, line + forwarding.stdout.read()
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=60) as answer:
                text = answer.read().decode()
        finally:
            forwarding.kill()

    shakes = summed(text, "qbitel_tls_handshakes_total", {"result": "ok", "group": "X25519MLKEM1024"})
    expiry = summed(text, "qbitel_cert_expiry_seconds", {})
    assert shakes >= 1
    assert expiry > 0
    assert "istio_tcp_connections_opened_total" in text
    saw(
        f"{len(text.splitlines())} lines; {shakes:g} handshakes of X25519MLKEM1024; the certificate ends in "
        f"{expiry:g} s"
    )


def test_qbitel_check_finds_nothing_wrong_with_the_mesh(mesh: Mesh, shop: Shop, saw: Callable[[str], None]) -> None:
    words = ("check", "--wait", "120", "-n", shop.namespace, "--control-namespace", mesh.namespace, "--skip", "machine")

    done = subprocess.run(
        [*_QBITEL, *words, "-o", "json"], capture_output=True, text=True, check=False, timeout=2 * cluster.PATIENCE
    )

    findings = json.loads(done.stdout)
    by_status: dict[str, list[str]] = {}
    for name, finding in findings.items():
        by_status.setdefault(finding["status"], []).append(f"{name}: {finding['detail']}")
    assert by_status.get("failure", []) == [], done.stderr
    assert done.returncode == 0, done.stderr
    counted = ", ".join(f"{len(found)} {status}" for status, found in sorted(by_status.items()))
    rest = [*by_status.get("warning", []), *by_status.get("skipped", [])]
    saw("\n        ".join([counted, *rest]))
