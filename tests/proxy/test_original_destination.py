"""Real interception in real network namespaces: the destination is read back, and whole connections cross two pods."""

from __future__ import annotations

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

from mesh.names import SIDECAR_GID, SIDECAR_UID
from proxy.config import Endpoint
from proxy.original_destination import NoOriginalDestination, original_destination, refuse_ourselves

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed"),
]


def root_only(function):
    for mark in needs_root:
        function = mark(function)
    return function


def test_a_connection_that_nothing_redirected_has_no_destination(tcp_pair):
    _, accepted = tcp_pair()
    with pytest.raises(NoOriginalDestination):
        # Where the kernel tracks connections it answers with our own address: that is refused as a loop.
        original_destination(accepted, {accepted.getsockname()[1]})


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.6", "127.255.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"],  # noqa: S104
)
def test_a_loopback_destination_is_somebody_outside_who_made_it_up(host):
    with pytest.raises(NoOriginalDestination, match="inside this pod"):
        refuse_ourselves(Endpoint(host, 9999), "10.0.0.1", {15006})


@pytest.mark.parametrize("host", ["10.0.0.1", "10.0.0.2", "fd00::1", "::ffff:10.0.0.1", "::6"])
def test_other_destinations_are_let_through(host):
    refuse_ourselves(Endpoint(host, 9999), "10.0.0.1", {15006})


def test_our_own_port_is_a_loop_at_our_own_address_only():
    with pytest.raises(NoOriginalDestination, match="own port"):
        refuse_ourselves(Endpoint("10.0.0.1", 15006), "10.0.0.1", {15006})
    refuse_ourselves(Endpoint("10.0.0.2", 15006), "10.0.0.1", {15006})


class Pod:
    """A network namespace with the interception rules of `qbitel init` and a sidecar behind them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.processes = []
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.run("ip", "link", "set", "lo", "up")

    def words(self, *words: object) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, *words: object) -> str:
        done = subprocess.run(self.words(*words), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *words: object, **options) -> subprocess.Popen:
        process = subprocess.Popen(self.words(*words), text=True, **options)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


# The application: says hello first, then sends everything back, and knows nothing of any mesh.
SERVER = """
import socket, sys, threading
def serve(sock):
    sock.sendall(b"hello from %s\\n" % sock.getpeername()[0].encode())
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.close()
listener = socket.create_server((sys.argv[1], 8080), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("up", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
CLIENT = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
greeting = sock.makefile("rb").readline()
sock.sendall(b"ping"); sock.shutdown(socket.SHUT_WR)
rest = b""
while data := sock.recv(100): rest += data
print(greeting.decode().strip(), rest.decode())
"""


@pytest.fixture(scope="module")
def pods(pki):
    """Two pods, joined by a veth pair: 10.77.0.1 and fd77::1 with the certificate web, …2 with api."""
    tag = uuid.uuid4().hex[:6]
    pair = []
    # Not below pytest's own folder, which only its user may enter: the sidecar is another one.
    base = Path(tempfile.mkdtemp(prefix="qbitel-pods-"))
    os.chown(base, SIDECAR_UID, SIDECAR_GID)
    try:
        for number, certs in ((1, "web"), (2, "api")):
            pod = Pod(f"qb-{tag}-{number}")
            pair.append(pod)
            pod.certs = base / certs
            shutil.copytree(pki.base / certs, pod.certs)
            for path in (pod.certs, *pod.certs.iterdir()):
                os.chown(path, SIDECAR_UID, SIDECAR_GID)
        first, second = (f"v{tag}{number}" for number in (1, 2))
        subprocess.run(
            ["ip", "link", "add", first, "netns", pair[0].name, "type", "veth", "peer", "name", second,
             "netns", pair[1].name], check=True,
        )  # fmt: skip
        for pod, device, number in ((pair[0], first, 1), (pair[1], second, 2)):
            pod.run("ip", "address", "add", f"10.77.0.{number}/24", "dev", device)
            pod.run("ip", "-6", "address", "add", f"fd77::{number}/64", "dev", device, "nodad")
            pod.run("ip", "link", "set", device, "up")
            pod.run(sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())", "init")
            pod.log = base / f"log-{number}"
            with pod.log.open("wb") as log, (base / f"err-{number}").open("wb") as err:
                pod.start(
                    "setpriv", "--reuid", SIDECAR_UID, "--regid", SIDECAR_GID, "--clear-groups", sys.executable, "-c",
                    "import sys; from cli.main import main; sys.exit(main())",
                    "proxy", "--certs", pod.certs, "--mesh", "10.77.0.0/24", "--mesh", "fd77::/64",
                    stdout=log, stderr=err,
                )  # fmt: skip
            pod.err = base / f"err-{number}"
        deadline = time.monotonic() + 15
        while not all(" INFO ready: " in pod.err.read_text() for pod in pair):
            assert time.monotonic() < deadline, [pod.err.read_text() for pod in pair]
            time.sleep(0.05)
        yield pair
    finally:
        for pod in pair:
            pod.close()
        shutil.rmtree(base)


def line_of(pod: Pod, **fields: str) -> dict:
    """The first line of the pod's access log on a connection with these fields; it may take a moment to come."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for text in pod.log.read_text().splitlines():
            line = json.loads(text)
            if line["event"] == "connection" and fields.items() <= line.items():
                return line
        time.sleep(0.02)
    raise AssertionError(f"no line with {fields} in\n{pod.log.read_text()}")


@root_only
@pytest.mark.parametrize(("address", "source"), [("10.77.0.2", "127.0.0.6"), ("fd77::2", "::6")])
def test_an_unmodified_client_reaches_an_unmodified_server_in_another_pod_over_the_mesh(pods, address, source):
    here, there = pods
    server = there.start(sys.executable, "-c", SERVER, address, stdout=subprocess.PIPE)
    assert server.stdout.readline() == "up\n"
    assert here.run(sys.executable, "-c", CLIENT, address, 8080) == f"hello from {source} ping\n"
    for pod, direction in ((here, "outbound"), (there, "inbound")):
        destination = f"[{address}]:8080" if ":" in address else f"{address}:8080"
        line = line_of(pod, destination=destination, direction=direction)
        assert line["group"] == "X25519MLKEM1024"
        assert line["bytes_received"] == 4


@root_only
def test_a_client_in_the_mesh_never_gets_plaintext_through_to_a_server_without_a_sidecar(pods):
    here, _ = pods
    # Port 15090 is excluded from interception at the server: there is no sidecar in front of it, only plain HTTP.
    done = subprocess.run(
        here.words(sys.executable, "-c", CLIENT, "10.77.0.2", 15090), capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert "ConnectionResetError" in done.stderr
    assert line_of(here, reason="not_tls", destination="10.77.0.2:15090")


@root_only
@pytest.mark.parametrize(("port", "direction"), [(15001, "outbound"), (15006, "inbound")])
def test_dialling_the_sidecars_own_port_is_no_loop(pods, port, direction):
    here, _ = pods
    code = (
        "import socket,sys\n"
        f"try: print(socket.create_connection((sys.argv[1], {port}), timeout=10).recv(10))\n"
        "except ConnectionResetError: print('reset')"
    )
    assert here.run(sys.executable, "-c", code, "127.0.0.1") == "reset\n"
    assert line_of(here, reason="no_original_destination", direction=direction)


@root_only
def test_a_destination_outside_the_mesh_passes_as_plain_tcp(pods):
    here, there = pods
    # A network that no --mesh covers, at the other end of the same wire; its sidecar is STRICT and refuses plaintext.
    there.run("ip", "address", "add", "10.88.0.2/32", "dev", "lo")
    here.run("ip", "route", "add", "10.88.0.2/32", "via", "10.77.0.2")
    done = subprocess.run(
        here.words(
            sys.executable, "-c",
            "import socket; s = socket.create_connection(('10.88.0.2', 8081), timeout=10); s.sendall(b'GET /');"
            "s.recv(10)",
        ), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "ConnectionResetError" in done.stderr
    assert line_of(there, direction="inbound", reason="plaintext_refused", destination="10.88.0.2:8081")
    line = line_of(here, direction="outbound", destination="10.88.0.2:8081")
    assert (line["group"], line["bytes_received"]) == (None, 5)


def test_an_own_port_at_another_address_is_no_loop(monkeypatch):
    """Another pod's port 15006 is a legitimate destination."""

    class Redirected:
        family = socket.AF_INET

        def getsockopt(self, *_):
            return b"\x02\x00" + (15006).to_bytes(2, "big") + bytes((10, 0, 0, 9)) + bytes(8)

        def getsockname(self):
            return ("10.0.0.1", 15001)

    assert str(original_destination(Redirected(), {15001, 15006})) == "10.0.0.9:15006"


def test_what_tproxy_brings_keeps_its_destination_and_the_front_door_is_read_back():
    class Accepted:
        family = socket.AF_INET

        def __init__(self, name):
            self.name = name

        def getsockopt(self, *_):
            return b"\x02\x00" + (8080).to_bytes(2, "big") + bytes((10, 0, 0, 1)) + bytes(8)

        def getsockname(self):
            return self.name

    def found(*name):
        return str(original_destination(Accepted(name), {15006}, transparent=True))

    assert found("10.0.0.1", 5432) == "10.0.0.1:5432"
    assert found("127.0.0.1", 15006) == "10.0.0.1:8080"
    with pytest.raises(NoOriginalDestination, match="own port"):
        found("10.0.0.1", 15006)
