"""`qbitel certmgr serve`: what bad input gets, and a life of the real process from its first line to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from certmgr import tokens
from certmgr.bundle import bundle_of
from certmgr.folder_store import FolderStore
from certmgr.state_document import decode_state, encode_state
from certmgr.store import AUTHORITY_DOCUMENT
from cli import certmgr
from cli.main import main
from tests.certmgr import real_authority
from tests.certmgr.api_rig import PATIENCE, Rig
from tests.certmgr.stand_in import utc_now, workload_id


def refusal(capsys, *words: object) -> str:
    """Run `qbitel certmgr WORDS`, which must fail with one line and exit code 2; return the line."""
    try:
        code = main(["certmgr", *map(str, words)])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("qbitel certmgr")
    return line


QUIET = ("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "required: COMMAND"),
        (["sell"], "invalid choice: 'sell'"),
        (["serve"], "give the authority's folder, or --kubernetes"),
        (["serve", "ca", "--kubernetes"], "two stores; give one"),
        (["serve", "ca", "--namespace", "x"], "--namespace is for --kubernetes"),
        (["serve", "--kubernetes", "--namespace", "../x"], "is no name for Kubernetes"),
        (["serve", "ca", "--service-secrets"], "--service-secrets is for --kubernetes"),
        (["serve", "ca", "--no-webhook-certificate"], "--no-webhook-certificate is for --kubernetes"),
        (["serve", "ca", "--replica", "one"], "--replica is for --kubernetes"),
        (["serve", "--kubernetes", "--kubeconfig", "nowhere"], "nowhere does not exist"),
        (["serve", "nowhere"], "nowhere is no folder"),
        (["serve", "ca", "--listen", "15012"], "is not HOST:PORT"),
        (["serve", "ca", "--profile", "rot13"], "is no profile"),
        (["serve", "ca", "--drain-seconds", "-1"], "is not a number of seconds from 0 to 3600"),
        (["serve", "ca", "--drain-seconds", "nan"], "is not a number of seconds from 0 to 3600"),
        (["serve", "ca", "--drain-seconds", "soon"], "is not a number of seconds from 0 to 3600"),
        (["serve", "ca", "--log-level", "loud"], "invalid choice: 'loud'"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, words, expected):
    assert expected in refusal(capsys, *words)


def test_a_folder_without_an_authority_is_one_line(capsys, tmp_path):
    assert "qbitel ca init" in refusal(capsys, "serve", tmp_path, *QUIET)


def test_a_port_that_is_taken_is_one_line_and_the_others_are_given_back(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(capsys, "serve", tmp_path, *QUIET[:-1], f"127.0.0.1:{port}")
    assert f"port {port} on 127.0.0.1 is in use" in line


@pytest.mark.parametrize("host", ["qbitel-certmgr-0", "a", "host.example.com", "a" * 64])
def test_a_replica_is_called_what_its_pod_is_called(host):
    assert certmgr.replica_name(host) == host


@pytest.mark.parametrize("host", ["", "My_Laptop", "-", "a..b", "a.", "a" * 65, "übung", "x/../../y", "a\n"])
def test_a_host_whose_name_no_object_can_have_gets_one_that_is_its_own(host):
    made = certmgr.replica_name(host)
    assert certmgr.replica_name(made) == made
    assert made != certmgr.replica_name(host + "x")


# The real process


class Process:
    """`qbitel certmgr serve` over `folder`; its lines are read until it says that it is ready."""

    def __init__(self, folder: Path) -> None:
        script = "import sys; from cli.main import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", script, "certmgr", "serve", str(folder), *QUIET]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if "ready: " in line:
                break

    def port(self, what: str) -> int:
        """Of the API, metrics or health."""
        (line,) = (line for line in self.lines if f" {what} on " in line)
        return int(line.rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal; return the exit code."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=PATIENCE)
        self.lines += rest.splitlines()
        return self.process.returncode


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Process]:
    made = Process(folder)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def found_with_tokens(folder: Path, *secrets: str) -> None:
    """An authority that lets machines enrol with these tokens."""

    async def main() -> None:
        await real_authority.found(folder)
        store = FolderStore(folder)
        stored = await store.load(AUTHORITY_DOCUMENT)
        state, until = decode_state(stored.document), utc_now() + datetime.timedelta(hours=1)
        for number, secret in enumerate(secrets):
            state = tokens.add_token(state, secret, workload_id(f"machine-{number}"), (), until, utc_now())
        await store.save(AUTHORITY_DOCUMENT, encode_state(state), stored.version)

    asyncio.run(main())


def enrol(folder: Path, port: int, token: str):
    """Ask the process for a certificate."""

    async def main():
        store = await FolderStore(folder).load(AUTHORITY_DOCUMENT)
        service = SimpleNamespace(bundle=lambda: bundle_of(decode_state(store.document)))
        client = Rig(service, port, None, None, None, None, None)
        try:
            return await client.certificate(bootstrap=token)
        finally:
            for session in client.sessions:
                await session.close()

    return asyncio.run(main())


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read().decode()


def test_a_life_from_the_first_line_to_sigterm(tmp_path):
    first, second = "1" * 40, "2" * 40
    found_with_tokens(tmp_path, first, second)
    with serving(tmp_path) as process:
        assert get(process.port("health"), "/healthz/ready") == "ready\n"
        answer = enrol(tmp_path, process.port("API"), first)
        assert answer.json["identity"] == str(workload_id("machine-0"))
        assert enrol(tmp_path, process.port("API"), first).error == (401, "bootstrap_refused")
        text = get(process.port("metrics"), "/metrics")
        assert 'qbitel_certmgr_csr_total{method="bootstrap",result="issued"} 1.0' in text
        assert 'qbitel_certmgr_csr_total{method="bootstrap",result="bootstrap_refused"} 1.0' in text
        assert process.end() == 0
    assert any("ready: the authority of cluster.local, profile qbitel, root SHA-256 " in line for line in process.lines)
    assert not any("Traceback" in line or first in line for line in process.lines)
    assert [entry["event"] for entry in real_authority.audit_log(tmp_path)] == ["issued", "refused"]


def test_what_was_spent_before_a_kill_stays_spent_and_the_rest_works_after_it(tmp_path):
    first, second = "1" * 40, "2" * 40
    found_with_tokens(tmp_path, first, second)
    with serving(tmp_path) as process:
        assert enrol(tmp_path, process.port("API"), first).status == 201
        process.end(signal.SIGKILL)
    with serving(tmp_path) as process:
        assert enrol(tmp_path, process.port("API"), first).error == (401, "bootstrap_refused")
        assert enrol(tmp_path, process.port("API"), second).status == 201
        assert process.end(signal.SIGINT) == 0
