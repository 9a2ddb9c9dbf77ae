"""`qbitel injector` as a command: a real process that answers reviews, and the configuration that points to it."""

from __future__ import annotations

import base64
import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cli.main import main as qbitel
from injector.webhook_configuration import LABELLED_NAMESPACE_PATH, IstioSidecarInjector
from tests.injector.rig import pod
from tests.injector.serving import write_certificate
from tests.injector.test_review import review

# For one answer; far beyond what a loaded machine needs.
PATIENCE = 120


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """The process, its port, and its certificate."""
    files = write_certificate(tmp_path)
    command = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())", "injector", "serve"]
    flags = ["--listen", "127.0.0.1:0", "--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    flags += ["--metrics", "127.0.0.1:0", "--drain-seconds", "0"]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            metrics = re.search(r"metrics on port (\d+)", process.stderr.readline())
            port = re.search(r"the webhook is on port (\d+)", process.stderr.readline())
            assert metrics is not None
            assert port is not None
            yield process, int(port[1]), files.certificate
        finally:
            process.kill()


def test_a_real_webhook_answers_and_ends_in_order(server: tuple[subprocess.Popen[str], int, Path]) -> None:
    process, port, certificate = server
    trust = ssl.create_default_context(cafile=certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=trust)

    body = json.dumps(review(pod()))
    connection.request("POST", LABELLED_NAMESPACE_PATH, body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    process.send_signal(signal.SIGTERM)

    patch = base64.b64decode(answer["response"]["patch"])
    assert b"QBITEL_INBOUND" in patch
    assert process.wait(PATIENCE) == 0


def test_without_a_certificate_it_does_not_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.crt"

    assert qbitel(["injector", "serve", "--tls-cert", str(missing), "--listen", "127.0.0.1:0"]) == 2

    assert capfd.readouterr().err == f"qbitel injector: {missing}: No such file or directory\n"


def test_a_port_that_is_taken_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = write_certificate(tmp_path)
    flags = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key), "--listen", "192.0.2.1:9443"]

    assert qbitel(["injector", "serve", *flags]) == 2

    assert "qbitel injector: cannot listen on 192.0.2.1 port 9443: " in capfd.readouterr().err


def test_the_configuration_is_printed_for_kubectl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(b"PEM")

    flags = ["--namespace", "mesh", "--name", "hook", "--ca", str(bundle), "--exclude-namespace", "payroll"]
    assert qbitel(["injector", "configuration", *flags]) == 0

    injector = IstioSidecarInjector("mesh", "hook", excluded_namespaces=["payroll"])
    expected = injector.create_webhook_configuration(b"PEM")
    assert yaml.safe_load(capsys.readouterr().out) == expected


def test_a_bundle_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert qbitel(["injector", "configuration", "--ca", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"qbitel injector: {tmp_path}/none: No such file or directory\n"
