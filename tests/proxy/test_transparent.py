"""Interception by TPROXY: the application sees its client's address, over real rules in real network namespaces."""

from __future__ import annotations

import contextlib
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

from mesh.errors import UserError
from mesh.names import SIDECAR_GID, SIDECAR_UID
from proxy import transparent
from proxy.transparent import ClientAddress
from tests.proxy.test_original_destination import CLIENT, SERVER, Pod, line_of, root_only

QBITEL = (sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())")
AS_SIDECAR = ("setpriv", "--reuid", SIDECAR_UID, "--regid", SIDECAR_GID, "--clear-groups")
# As the injector starts it (docs/adr/0016-interception.md).
WITH_NET_ADMIN = (*AS_SIDECAR, "--inh-caps", "-all,+net_admin", "--ambient-caps", "-all,+net_admin")
HERE, THERE = {4: "10.81.0.1", 6: "fd81::1"}, {4: "10.81.0.2", 6: "fd81::2"}
PATIENCE = 60


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("10.0.0.7", True), ("169.254.1.1", True), ("fd00::7", True),
        ("127.0.0.1", False), ("::1", False), ("fe80::1%eth0", False),
    ],
)  # fmt: skip
def test_whoever_has_an_address_that_packets_find_is_dialled_as(client, expected):
    assert transparent.can_dial_as(client) is expected


def test_a_client_s_address_is_one_like_any_other():
    assert ClientAddress("10.0.0.7") == "10.0.0.7"


class World:
    """Two pods: the first dials and is intercepted by redirects; the second serves, behind TPROXY."""

    def __init__(self, pki, stack: contextlib.ExitStack, mode: str) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="qbitel-tproxy-"))  # pytest's own folder lets no other user in
        stack.callback(shutil.rmtree, self.base)
        tag = uuid.uuid4().hex[:6]
        self.here, self.there = (
            stack.enter_context(contextlib.closing(Pod(f"qb-{tag}-{name}"))) for name in ("c", "s")
        )
        self.here.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.there.name)
        for pod, own, certs in ((self.here, HERE, "web"), (self.there, THERE, "api")):
            pod.run("ip", "link", "set", "eth0", "up")
            pod.run("ip", "address", "add", f"{own[4]}/24", "dev", "eth0")
            pod.run("ip", "address", "add", f"{own[6]}/64", "dev", "eth0", "nodad")
            shutil.copytree(pki.base / certs, self.base / certs)
        for path in (self.base, *self.base.glob("*"), *self.base.glob("*/*")):
            os.chown(path, SIDECAR_UID, SIDECAR_GID)
        self.here.run(*QBITEL, "init")
        self.there.run(*QBITEL, "init", "--inbound-mode", "tproxy")
        nets = ("--mesh", "10.81.0.0/24", "--mesh", "fd81::/64")
        self.start(self.here, "web", *AS_SIDECAR, *QBITEL, "proxy", *nets)
        words = ("--interception-mode", "TPROXY", "--mode", mode, "--workers", 2)
        self.start(self.there, "api", *WITH_NET_ADMIN, *QBITEL, "proxy", *nets, *words)
        for address in THERE.values():
            server = self.there.start(sys.executable, "-c", SERVER, address, stdout=subprocess.PIPE)
            assert server.stdout.readline() == "up\n"

    def start(self, pod: Pod, certs: str, *words: object) -> None:
        pod.log, pod.err = self.base / f"log-{certs}", self.base / f"err-{certs}"
        with pod.log.open("wb") as log, pod.err.open("wb") as err:
            pod.sidecar = pod.start(*words, "--certs", self.base / certs, stdout=log, stderr=err)
        deadline = time.monotonic() + PATIENCE
        while " INFO ready: " not in pod.err.read_text():
            assert time.monotonic() < deadline, pod.err.read_text()
            assert pod.sidecar.poll() is None, pod.err.read_text()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def world(pki):
    with contextlib.ExitStack() as stack:
        yield World(pki, stack, "PERMISSIVE")


def dial(pod: Pod, address: str, *as_user: object) -> str:
    return pod.run(*as_user, sys.executable, "-c", CLIENT, address, 8080).strip()


@root_only
@pytest.mark.parametrize("version", [4, 6])
def test_the_application_sees_the_pod_that_dialled_through_a_tunnel(world, version):
    for _ in range(3):  # the first makes the tunnel, the others find it
        assert dial(world.here, THERE[version]) == f"hello from {HERE[version]} ping"
    destination = f"[{THERE[6]}]:8080" if version == 6 else f"{THERE[4]}:8080"
    assert line_of(world.there, direction="inbound", destination=destination, group="X25519MLKEM1024")


@root_only
@pytest.mark.parametrize("version", [4, 6])
def test_the_application_sees_a_client_in_plaintext(world, version):
    # The sidecar's own user is not captured: what it dials goes out as it is.
    assert dial(world.here, THERE[version], *AS_SIDECAR) == f"hello from {HERE[version]} ping"


@root_only
@pytest.mark.parametrize("version", [4, 6])
def test_what_the_pod_dials_of_itself_comes_back_to_it(world, version):
    """By its own Service: out to the sidecar, which finds the address in its own pod, and in by the front door."""
    assert dial(world.there, THERE[version]).endswith(" ping")


@root_only
def test_the_client_s_own_ports_are_never_dialled_from(world):
    code = (
        "import socket, sys\n"
        "made = [socket.create_connection((sys.argv[1], 8080), timeout=30) for _ in range(200)]\n"
        "print(all(sock.makefile('rb').readline().startswith(b'hello') for sock in made))"
    )
    seen = world.there.start(
        sys.executable, "-c",
        "import socket\n"
        "server = socket.create_server(('10.81.0.2', 8081))\n"
        "print('up', flush=True)\n"
        "for _ in range(20):\n"
        "    sock, (host, port) = server.accept(); sock.recv(9); sock.sendall(b'%d\\n' % port); sock.close()",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert seen.stdout.readline() == "up\n"
    # Whoever says something at once is not waited for (PERMISSIVE).
    ports = world.here.run(
        *AS_SIDECAR, sys.executable, "-c",
        "import socket\n"
        "for _ in range(20):\n"
        "    sock = socket.create_connection(('10.81.0.2', 8081), timeout=30); sock.sendall(b'hello')\n"
        "    print(sock.recv(10).decode())",
    ).split()  # fmt: skip
    assert len(set(ports)) == 20
    assert all(1024 <= int(port) < 32768 for port in ports)
    assert world.here.run(*AS_SIDECAR, sys.executable, "-c", code, "10.81.0.2") == "True\n"


@root_only
def test_without_the_capability_it_does_not_start_and_says_what_it_needs(world):
    words = (*QBITEL, "proxy", "--interception-mode", "TPROXY", "--certs", world.base / "api")
    done = subprocess.run(
        world.there.words(*AS_SIDECAR, *words),
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "needs the capability NET_ADMIN" in line


@root_only
def test_a_port_that_is_taken_is_passed_over_and_too_many_are_an_error(monkeypatch):
    client = "198.51.100.7"  # of nobody (RFC 5737)
    monkeypatch.setattr(transparent, "_PORTS", range(2000, 2003))
    monkeypatch.setattr(transparent, "_TRIES", 3)
    transparent._ports.cache_clear()
    try:
        with contextlib.ExitStack() as stack:
            made = [stack.enter_context(socket.socket()) for _ in range(4)]
            for sock in made[:3]:
                transparent.bind_as(sock, client)
            assert {sock.getsockname() for sock in made[:3]} == {(client, port) for port in (2000, 2001, 2002)}
            with pytest.raises(OSError, match="in use"):
                transparent.bind_as(made[3], client)
            made[1].close()
            transparent.bind_as(made[3], client)
    finally:
        transparent._ports.cache_clear()


@root_only
def test_what_a_process_may_do_is_found_out_beforehand():
    transparent.check()
    code = "from proxy import transparent; transparent.check()"
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-net_admin,-net_raw", "--inh-caps", "-all", sys.executable, "-c", code],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert UserError.__name__ in done.stderr
    assert "NET_ADMIN" in done.stderr
