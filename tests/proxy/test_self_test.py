"""The proof that interception works: a connection of our own, redirected to us."""

from __future__ import annotations

import asyncio
import json
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
from proxy.self_test import PROBE, PROBE_V6, Probe
from proxy.server import NO_LONGER_REDIRECTED, NOT_REDIRECTED


def test_it_is_only_tried_as_the_user_that_the_rules_know(monkeypatch):
    monkeypatch.setattr(self_test.os, "geteuid", lambda: names.SIDECAR_UID)
    assert self_test.can_be_tried()
    monkeypatch.setattr(self_test.os, "geteuid", lambda: 0)
    assert not self_test.can_be_tried()


def test_what_arrives_with_its_destination_is_told_from_what_somebody_made_up():
    with pytest.raises(SelfTestArrived):
        refuse_ourselves(self_test.PROBE.target, "127.0.0.1", {15006})
    with pytest.raises(NoOriginalDestination) as other:
        refuse_ourselves(Endpoint("127.0.0.2", 22), "127.0.0.1", {15006})
    assert not isinstance(other.value, SelfTestArrived)
    with pytest.raises(SelfTestArrived):
        refuse_ourselves(self_test.PROBE_V6.target, "::1", {15006})
    refuse_ourselves(Endpoint("::6", 22), "2001:db8::1", {15006})  # an address like others, but for that port


def test_it_tries_until_somebody_answers_with_the_word(run, monkeypatch):
    monkeypatch.setattr(self_test, "_PAUSE", 0.01)

    async def main():
        loop = asyncio.get_running_loop()
        with sockets.listen(Endpoint("127.0.0.1", 0)) as listening:
            probe = Probe(Endpoint("127.0.0.1", listening.getsockname()[1]))
            proof = asyncio.ensure_future(self_test.until_redirected(lambda: (probe,)))
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
            proof = asyncio.ensure_future(self_test.until_redirected(lambda: (Probe(endpoint),)))
            await asyncio.sleep(0.1)
            assert not proof.done()
            free.close()
            with sockets.listen(endpoint) as listening:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
                with accepted:
                    self_test.answer(accepted)
                await proof

    run(main())


class Door:
    """A port that treats each of those who knock as the next of `deeds` says, and from then on as the last."""

    def __init__(self, *deeds):
        self.deeds = list(deeds)
        self.knocks = 0
        self._server = None

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.probe = Probe(Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1]))
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _answer(self, _reader, writer):
        self.knocks += 1
        deed = self.deeds.pop(0) if len(self.deeds) > 1 else self.deeds[0]
        if deed == "reset":
            writer.transport.abort()
            return
        writer.write(deed)
        writer.close()


WORD, OTHER = b"qbitel self-test\n", b"220 mail.example ESMTP\r\n"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(self_test, "_PAUSE", 0.01)
    monkeypatch.setattr(self_test, "_AGAIN", 0.01)


@pytest.mark.usefixtures("quick")
def test_it_is_lost_when_somebody_else_answers_three_times_in_a_row_and_not_before(run):
    async def main():
        async with Door(WORD, OTHER, OTHER, WORD, OTHER, WORD, OTHER) as door:
            lost = await asyncio.wait_for(self_test.until_lost(lambda: (door.probe,)), 10)
            assert lost is door.probe
            assert door.knocks == 9

    run(main())


@pytest.mark.usefixtures("quick")
def test_it_is_lost_when_nobody_listens_any_more(run):
    async def main():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            probe = Probe(Endpoint("127.0.0.1", free.getsockname()[1]))
            assert await asyncio.wait_for(self_test.until_lost(lambda: (probe,)), 10) is probe

    run(main())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("deed", ["reset", b"", WORD])
def test_a_sidecar_that_has_too_much_to_do_has_not_lost_its_interception(run, deed):
    async def main():
        async with Door(deed) as door:
            proof = asyncio.ensure_future(self_test.until_lost(lambda: (door.probe,)))
            while door.knocks < 20:
                await asyncio.sleep(0.01)
            assert not proof.done()
            proof.cancel()

    run(main())


@pytest.mark.usefixtures("quick")
def test_each_of_several_must_arrive_and_one_that_is_lost_is_enough(run):
    async def main():
        async with Door(WORD) as good, Door(OTHER, OTHER, WORD, OTHER) as other:
            both = (good.probe, other.probe)
            await asyncio.wait_for(self_test.until_redirected(lambda: both), 10)
            assert other.knocks == 3
            assert await asyncio.wait_for(self_test.until_lost(lambda: both), 10) is other.probe

    run(main())


def test_ipv6_is_to_be_proved_where_the_sidecars_address_is_and_where_we_listen(monkeypatch):
    both = (socket.AF_INET, socket.AF_INET6)
    monkeypatch.setattr(self_test, "_is_ours", lambda host: host == "::6")
    assert self_test.probes_for(both) == (PROBE, PROBE_V6)
    assert self_test.probes_for((socket.AF_INET,)) == (PROBE,)
    monkeypatch.setattr(self_test, "_is_ours", lambda _host: False)
    assert self_test.probes_for(both) == (PROBE,)


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
def test_a_sidecar_is_ready_while_interception_brings_it_connections_and_says_what_is_missing(pod, tmp_path):
    inside, certs = pod
    user = ("setpriv", "--reuid", str(names.SIDECAR_UID), "--regid", str(names.SIDECAR_GID), "--clear-groups")
    log = tmp_path / "access.log"
    with log.open("w") as stdout:
        sidecar = subprocess.Popen([*inside, *user, *QBITEL, "proxy", "--certs", str(certs)], stdout=stdout)

    def until(expected: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and sidecar.poll() is None:
            said = subprocess.run([*inside, sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
            if said.stdout.startswith(expected):
                return said.stdout.strip()
        raise AssertionError(f"never {expected}; the last was {said.stdout!r}, exit {sidecar.poll()}")

    try:
        missing = until("503 a connection")
        subprocess.run([*inside, *QBITEL, "init", "--ipv6", "on"], check=True, capture_output=True)
        ready = until("200")
        subprocess.run([*inside, "ip6tables", "-t", "nat", "-F"], check=True)
        lost = until("503")
        subprocess.run([*inside, *QBITEL, "init", "--ipv6", "on"], check=True, capture_output=True)
        again = until("200")
    finally:
        sidecar.kill()
        sidecar.wait()
    assert missing == f"503 {NOT_REDIRECTED}"
    assert ready == again == "200 ready"
    assert lost == f"503 {NO_LONGER_REDIRECTED.format(target=PROBE_V6.target)}"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == []  # of the sidecar's own connections nothing is logged
