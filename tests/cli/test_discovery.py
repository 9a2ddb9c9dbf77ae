"""`qbitel discovery` as a command: what bad input gets, and a real process from its first line to SIGTERM."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from cli.main import main as qbitel
from tests.control.test_cluster import Server, server

__all__ = ["server"]

PATIENCE = 120.0  # seconds, on a slow machine


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --kubernetes for the cluster that this pod is in, or --kubeconfig FILE"),
        (["--kubernetes", "--kubeconfig", "x"], "give --kubernetes for the cluster that this pod is in"),
        (["--kubeconfig", "x", "--mesh", "10.1.2.3/8"], "--mesh: 10.1.2.3/8 has host bits set"),
        (["--kubeconfig", "x", "--mesh", "::ffff:10.0.0.0/104"], "write them as IPv4"),
        (["--kubeconfig", "x", "--trust-domain", "A B"], "--trust-domain: 'A B' is no trust domain"),
        (["--kubeconfig", "/none", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0"], "/none does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert qbitel(["discovery", "serve", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ["discovery", "serve", "--kubeconfig", "x", "--metrics", address, "--health", address]
        assert qbitel(words) == 2
    assert address.rpartition(":")[2] in capsys.readouterr().err


def status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_life_from_the_first_line_to_sigterm(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())", "discovery", "serve"]
    flags = ["--kubeconfig", server.kubeconfig, "--mesh", "10.244.0.0/16", "--replica", "one"]
    addresses = ["--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0"]
    with subprocess.Popen([*command, *flags, *addresses], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            ports = {}
            while ports.keys() != {"metrics", "health"}:
                line = process.stderr.readline()
                assert line, "it ended"
                if found := re.search(r"(metrics|health) on port (\d+)", line):
                    ports[found[1]] = int(found[2])
            deadline = time.monotonic() + PATIENCE
            while status(ports["health"], "/healthz/ready") != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert status(ports["metrics"], "/metrics") == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
