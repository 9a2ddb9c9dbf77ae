"""The demo's process itself: above all, that what should make it fail does."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.demo import inside
from cli.demo.identities import Identity
from cli.demo.loopback import LoopbackStage
from cli.demo.options import Options
from cli.demo.processes import Child, module
from cli.demo.report import Printer
from cli.demo.stage import Endpoint, Mesh, Wire

SMALL = Options(once=True, loopback=True, file_mib=1)


class LeakyStage(LoopbackStage):
    """The second tap stands where nothing is encrypted: between the client and pod-a's sidecar."""

    def open_wire(self, *, sidecars: bool, pcap: Path | None = None) -> Wire:
        self.encrypted = super().open_wire(sidecars=sidecars, pcap=pcap)
        if not sidecars:
            return self.encrypted
        words = [*module("tap"), "--target-port", str(self.outbound_port)]
        tap = self.start(Child("the leak", words, ends_with_input=True))
        return Wire(tap, Endpoint("127.0.0.1", tap.expect("ready", 10)["port"]))

    def start_mesh(self, wire: Wire, identities: Sequence[Identity]) -> Mesh:
        return super().start_mesh(self.encrypted, identities)


def test_plaintext_on_the_wire_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inside, "LoopbackStage", LeakyStage)
    monkeypatch.setattr(inside, "adopt_orphans", lambda: None)  # of the test's own process
    monkeypatch.setattr(inside, "end_descendants", lambda: None)
    output = io.StringIO()
    assert inside._play(SMALL, Printer(output, {}), tmp_path, "a test") == 1
    text = output.getvalue()
    assert "NOT SEEN  with sidecars none of it is on the wire" in text
    assert "NOT SEEN  on the wire, every connection began with a ClientHello" in text
    assert text.count("NOT SEEN") == 2
    assert "NOT every claim was seen" in text


def run_inside(folder: Path, options: Options) -> tuple[subprocess.CompletedProcess[str], bytes]:
    """The process as its guard starts it; what it said last over the lifeline."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [*module("inside"), "--lifeline", str(theirs.fileno()), "--folder", str(folder)]
        done = subprocess.run(
            [*command, "--options", options.to_json()],
            pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        ours.setblocking(False)
        return done, ours.recv(1000)


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = Options(once=True, app=("true",), port=taken.getsockname()[1])
        done, last = run_inside(tmp_path, options)
    assert done.returncode == 2
    assert done.stderr.startswith("qbitel demo: port ")
    assert done.stderr.count("\n") == 1
    assert last == b"done"


def test_a_server_that_ends_at_once_is_a_sentence_and_its_last_words(tmp_path: Path) -> None:
    words = (sys.executable, "-c", "import sys; sys.exit('no configuration')")
    done, last = run_inside(tmp_path, Options(once=True, app=words, port=1))
    assert done.returncode == 1
    assert "ended before it accepted connections" in done.stdout
    assert "| no configuration" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert last == b"done"


def test_a_pod_that_cannot_be_made_is_told_to_the_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise inside.CannotIsolateError("the kernel says no")

    monkeypatch.setattr(inside, "make_private_folder", refuse)
    monkeypatch.setattr(inside, "_listen_to_guard", lambda lifeline, folder: None)
    monkeypatch.setattr(inside, "_stop_on_signals", lambda: None)
    ours, theirs = socket.socketpair()
    with ours:
        descriptor = theirs.detach()
        code = inside.main(["--lifeline", str(descriptor), "--options", SMALL.to_json()])
        os.close(descriptor)
        assert code == inside.EXIT_CANNOT_ISOLATE
        assert ours.recv(100) == b"the kernel says no"
