from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cli.demo.errors import PartFailedError
from cli.demo.processes import Place, wait_until
from cli.demo.sidecar import Counters, Sidecar, http_get

LOG = [
    {"event": "handshake", "direction": "outbound", "handshake_ms": 4.5, "profile": "qbitel", "group": "G",
     "signature": "S", "cipher_suite": "C", "local_identity": "spiffe://a/b", "peer_identity": "spiffe://a/c"},
    {"event": "connection", "bytes_sent": 5, "bytes_received": 7},
    {"event": "connection", "bytes_sent": None, "bytes_received": None, "flag": "CONNECT"},
]  # fmt: skip


class Status(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path in ("/metrics", "/healthz/ready") else 404)
        self.end_headers()
        self.wfile.write(b"# HELP x\nx 1.0\ny 2.0\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def status_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Status) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def sidecar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sidecar]:
    """One whose process only writes a log."""
    script = "\n".join(f"echo '{json.dumps(line)}'" for line in LOG)
    monkeypatch.setattr(Place, "wrap", lambda self, command: ["sh", "-c", f"{script}\nexec sleep 60"])
    with ExitStack() as stack:
        sidecar = Sidecar("pod-a", Path("/none"), Place(), [])
        stack.callback(sidecar.child.stop)
        yield sidecar


def test_the_log_becomes_handshakes_and_counters(sidecar: Sidecar) -> None:
    assert wait_until(lambda: sidecar.counters == Counters(handshakes=1, connections=2, bytes=12), 5)
    (shake,) = sidecar.handshakes
    assert (shake.direction, shake.handshake_ms, shake.group) == ("outbound", 4.5, "G")
    assert (shake.local_identity, shake.peer_identity) == ("spiffe://a/b", "spiffe://a/c")


def test_readiness_and_metrics_are_asked_over_http(sidecar: Sidecar, status_port: int) -> None:
    sidecar.wait_ready(status_port)
    assert sidecar.metrics(status_port) == ["x 1.0", "y 2.0"]
    assert http_get(status_port, "/else")[0] == 404


def test_metrics_that_do_not_answer_are_a_failure(sidecar: Sidecar) -> None:
    with pytest.raises(PartFailedError, match="the metrics of pod-a do not answer"):
        sidecar.metrics(1)


def test_a_sidecar_that_cannot_start_says_why(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sidecar = Sidecar("pod-a", tmp_path, Place(), ["--no-capture"])
        stack.callback(sidecar.child.stop)
        with pytest.raises(PartFailedError, match="the sidecar of pod-a ended while it started") as failure:
            sidecar.wait_ready(1)
        assert failure.value.lines[-1].startswith("qbitel proxy: ")
        with pytest.raises(PartFailedError, match="ended"):
            sidecar.check_running()
