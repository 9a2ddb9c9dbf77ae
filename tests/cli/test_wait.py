"""`qbitel wait`: hooks of a pod, against a sidecar's ports."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from cli.main import main as qbitel


class Sidecar(http.server.ThreadingHTTPServer):
    """Answers what is left in `answers`, the last one for ever, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Sidecar

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    with Sidecar() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_it_waits_until_the_sidecar_is_ready(sidecar: Sidecar) -> None:
    sidecar.answers = [(503, b"starting\n"), (503, b"starting\n"), (200, b"ready\n")]

    assert qbitel(["wait", "--ready", "--health", sidecar.address]) == 0
    assert sidecar.asked == ["GET /healthz/ready"] * 3


def test_it_says_when_the_sidecar_was_not_ready_in_time(sidecar: Sidecar, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar.answers = [(503, b"starting\n")]

    assert qbitel(["wait", "--ready", "--timeout", "0", "--health", sidecar.address]) == 1
    assert capsys.readouterr().err == "qbitel wait: the sidecar is not ready after 0 seconds\n"


def test_it_drains_and_waits_until_no_connection_is_left(sidecar: Sidecar) -> None:
    sidecar.answers = [(200, b"{}"), (200, b'{"total": 2}'), (500, b"x"), (200, b"[]"), (200, b'{"total": 0}')]

    assert qbitel(["wait", "--drained", "--admin", sidecar.address]) == 0
    assert sidecar.asked == ["POST /drain", *["GET /connections?limit=1"] * 4]


def test_a_sidecar_that_has_ended_is_drained_and_never_ready() -> None:
    with Sidecar() as gone:
        address = gone.address

    assert qbitel(["wait", "--drained", "--admin", address]) == 0
    assert qbitel(["wait", "--ready", "--timeout", "0", "--health", address]) == 1


@pytest.mark.parametrize(
    "words", [[], ["--ready", "--drained"], ["--ready", "--timeout", "-1"], ["--ready", "--timeout", "x"]]
)
def test_what_makes_no_sense_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        qbitel(["wait", *words])
    assert refused.value.code == 2
