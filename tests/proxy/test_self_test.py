"""The proof that interception works: a connection of our own, redirected to us."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from mesh import names
from proxy import self_test, sockets
from proxy.config import Endpoint
from proxy.original_destination import NoOriginalDestination, SelfTestArrived, refuse_ourselves
from proxy.server import NOT_REDIRECTED


def test_it_is_only_tried_as_the_user_that_the_rules_know(monkeypatch):
    monkeypatch.setattr(self_test.os, "geteuid", lambda: names.SIDECAR_UID)
    assert self_test.can_be_tried()
    monkeypatch.setattr(self_test.os, "geteuid", lambda: 0)
    assert not self_test.can_be_tried()


def test_what_arrives_with_its_destination_is_told_from_what_somebody_made_up():
    with pytest.raises(SelfTestArrived):
        refuse_ourselves(self_test.PROBE, "127.0.0.1", {15006})
    with pytest.raises(NoOriginalDestination) as other:
        refuse_ourselves(Endpoint("127.0.0.2", 22), "127.0.0.1", {15006})
    assert not isinstance(other.value, SelfTestArrived)


def test_it_tries_until_somebody_answers_with_the_word(run, monkeypatch):
    monkeypatch.setattr(self_test, "_PAUSE", 0.01)

    async def main():
        loop = asyncio.get_running_loop()
        with sockets.listen(Endpoint("127.0.0.1", 0)) as listening:
            proof = asyncio.ensure_future(self_test.until_redirected(Endpoint("127.0.0.1", listening.getsockname()[1])))
            silent, _ = await loop.sock_accept(listening)  # an application that listens there all the same
            silent.close()
            wrong, _ = await loop.sock_accept(listening)
            with wrong:
                wrong.send(b"220 mail.example ESMTP\r\n")
            ours, _ = await loop.sock_accept(listening)
            assert not proof.done()
            with ours:
                self_test.answer(ours)
            await proof

    run(main())


def test_where_nobody_listens_it_goes_on_trying(run, monkeypatch):
    monkeypatch.setattr(self_test, "_PAUSE", 0.01)

    async def main():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = Endpoint("127.0.0.1", free.getsockname()[1])
            proof = asyncio.ensure_future(self_test.until_redirected(endpoint))
            await asyncio.sleep(0.1)
            assert not proof.done()
            free.close()
            with sockets.listen(endpoint) as listening:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
                with accepted:
                    self_test.answer(accepted)
                await proof

    run(main())


def test_whoever_asked_and_left_is_no_error(tcp_pair):
    near, far = tcp_pair()
    near.close()
    for _ in range(3):
        self_test.answer(far)


QBITEL = (sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())")
ASK = """
import sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen("http://127.0.0.1:15021/healthz/ready", timeout=10) as answer:
        print(answer.status, answer.read().decode().strip())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode().strip())
except OSError:
    print("nobody answers")
"""


@pytest.fixture
def pod(pki):
    """(words to run something in a new network namespace, a folder with certificates for the sidecar's user)."""
    name = f"qb-self-{uuid.uuid4().hex[:6]}"
    base = Path(tempfile.mkdtemp(prefix="qbitel-self-test-"))  # pytest's own folder lets no other user in
    try:
        shutil.copytree(pki.base / "api", base / "certs")
        for path in (base, base / "certs", *(base / "certs").iterdir()):
            os.chown(path, names.SIDECAR_UID, names.SIDECAR_GID)
        subprocess.run(["ip", "netns", "add", name], check=True)
        try:
            inside = ("ip", "netns", "exec", name)
            subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
            yield inside, base / "certs"
        finally:
            subprocess.run(["ip", "netns", "delete", name], check=True)
    finally:
        shutil.rmtree(base)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
def test_a_sidecar_is_ready_only_when_interception_brings_it_a_connection_and_says_what_is_missing(pod):
    inside, certs = pod
    user = ("setpriv", "--reuid", str(names.SIDECAR_UID), "--regid", str(names.SIDECAR_GID), "--clear-groups")
    sidecar = subprocess.Popen([*inside, *user, *QBITEL, "proxy", "--certs", str(certs)], stdout=subprocess.DEVNULL)

    def until(expected: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and sidecar.poll() is None:
            said = subprocess.run([*inside, sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
            if said.stdout.startswith(expected):
                return said.stdout.strip()
        raise AssertionError(f"never {expected}; the last was {said.stdout!r}, exit {sidecar.poll()}")

    try:
        missing = until("503 a connection")
        subprocess.run([*inside, *QBITEL, "init"], check=True, capture_output=True)
        ready = until("200")
    finally:
        sidecar.kill()
        sidecar.wait()
    assert missing == f"503 {NOT_REDIRECTED}"
    assert ready == "200 ready"
