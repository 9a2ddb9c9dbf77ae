"""Real interception in real network namespaces: what each mode makes of a pod with a sidecar and of one without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from mesh.names import SIDECAR_GID, SIDECAR_UID
from tests.proxy.test_original_destination import CLIENT, SERVER, Pod, needs_root

pytestmark = needs_root

HERE, MESHED, PLAIN = "10.78.0.1", "10.78.0.2", "10.78.1.2"
VIP = "10.99.0.1"  # of no machine at all
QBITEL = (sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())")
PATIENCE = 20


class World:
    """A pod that dials, with a peers document; a pod with a sidecar, and one without."""

    def __init__(self, pki, stack: contextlib.ExitStack) -> None:
        tag = uuid.uuid4().hex[:6]
        # Not below pytest's own folder, which only its user may enter: the sidecar is another one.
        self.base = Path(tempfile.mkdtemp(prefix="qbitel-pods-"))
        stack.callback(shutil.rmtree, self.base)
        self.own(self.base)
        self.here, self.meshed, self.plain = (
            stack.enter_context(contextlib.closing(Pod(f"qb-{tag}-{name}"))) for name in ("h", "m", "p")
        )
        self.hosts = Path(f"/etc/netns/{self.here.name}/hosts")  # what `ip netns exec` puts in the place of /etc/hosts
        self.hosts.parent.mkdir(parents=True)
        stack.callback(shutil.rmtree, self.hosts.parent)
        self.hosts.write_text(f"{MESHED} api.shop.svc\n")
        for number, pod in enumerate((self.meshed, self.plain)):
            mine, its = f"h{tag}{number}", f"p{tag}{number}"
            words = ("ip", "link", "add", mine, "netns", self.here.name, "type", "veth", "peer", "name", its)
            subprocess.run([*words, "netns", pod.name], check=True)
            for end, device, last in ((self.here, mine, 1), (pod, its, 2)):
                end.run("ip", "address", "add", f"10.78.{number}.{last}/24", "dev", device)
                end.run("ip", "link", "set", device, "up")
        self.here.run("ip", "route", "add", "10.99.0.0/24", "via", MESHED)
        self.document = self.base / "peers.yaml"
        self.policies = self.base / "policies"
        self.policies.mkdir()
        self.own(self.policies)
        self.write()
        for pod, certs in ((self.here, "web"), (self.meshed, "api")):
            shutil.copytree(pki.base / certs, self.base / certs)
            self.own(self.base / certs, *(self.base / certs).iterdir())
            pod.run(*QBITEL, "init")
        self.start(self.here, "web", "--peers", self.document, "--policy", self.policies)
        self.start(self.meshed, "api")
        for pod in (self.meshed, self.plain):
            for address in (MESHED if pod is self.meshed else PLAIN,):
                server = pod.start(sys.executable, "-c", SERVER, address, stdout=subprocess.PIPE)
                assert server.stdout.readline() == "up\n"

    def own(self, *paths: Path) -> None:
        for path in paths:
            os.chown(path, SIDECAR_UID, SIDECAR_GID)

    def start(self, pod: Pod, certs: str, *words: object) -> None:
        """Run the sidecar of `pod`, and wait until it is ready."""
        pod.log, pod.err = self.base / f"log-{certs}", self.base / f"err-{certs}"
        with pod.log.open("ab") as log, pod.err.open("wb") as err:
            pod.sidecar = pod.start(
                "setpriv", "--reuid", SIDECAR_UID, "--regid", SIDECAR_GID, "--clear-groups", *QBITEL,
                "proxy", "--certs", self.base / certs, *words, stdout=log, stderr=err,
            )  # fmt: skip
        self.until(lambda: " INFO ready: " in pod.err.read_text(), pod)

    def until(self, condition, pod: Pod):
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, f"did not come\n{pod.err.read_text()}\n{pod.log.read_text()}"
            time.sleep(0.02)
        return found

    def write(self, *entries: dict) -> None:
        text = json.dumps({"apiVersion": "qbitel.io/v1", "kind": "Peers", "peers": list(entries)})
        new = self.base / "peers.new"
        new.write_text(text)
        self.own(new)
        new.replace(self.document)

    def take_up(self, *entries: dict) -> None:
        """These are the entries from now on."""
        before = self.here.err.read_text().count("peers in use")
        self.write(*entries)
        # The chores of the sidecar find it by themselves, but not at once. `ip netns exec` becomes what it runs.
        self.here.sidecar.send_signal(signal.SIGHUP)
        self.until(lambda: self.here.err.read_text().count("peers in use") > before, self.here)

    def rule(self, host: str, mode: str) -> None:
        """The folder has this DestinationRule alone, and it is followed."""
        spec = {"host": host, "trafficPolicy": {"tls": {"mode": mode}}}
        metadata = {"name": mode.lower().replace("_", "-"), "namespace": "default"}
        rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec}
        (self.policies / "rule.yaml").write_text(json.dumps(rule))
        self.here.sidecar.send_signal(signal.SIGHUP)
        code = (
            "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:15000/config_dump').read().decode())"
        )
        wanted = f"DestinationRule default/{metadata['name']}"
        self.until(lambda: wanted in self.here.run(sys.executable, "-c", code), self.here)

    def dial(self, address: str, port: int = 8080) -> str:
        """What the application of the first pod hears there; "reset" where it is reset."""
        done = subprocess.run(
            self.here.words(sys.executable, "-c", CLIENT, address, port), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        return "reset" if "ConnectionResetError" in done.stderr else done.stdout.strip() or done.stderr

    def lines(self, pod: Pod, event: str = "connection", **fields: object) -> list[dict]:
        found = [json.loads(line) for line in pod.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in found if line["event"] == event and fields.items() <= line.items()]

    def last(self, pod: Pod, **fields: object) -> dict:
        return self.until(lambda: self.lines(pod, **fields), pod)[-1]

    def metric(self, name: str, **labels: str) -> float:
        code = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:15090/metrics').read().decode())"
        total = 0.0
        for line in self.here.run(sys.executable, "-c", code).splitlines():
            series = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if series and all(f'{key}="{value}"' in (series[1] or "") for key, value in labels.items()):
                total += float(series[2])
        return total


@pytest.fixture(scope="module")
def world(pki):
    with contextlib.ExitStack() as stack:
        yield World(pki, stack)


# Sends three megabytes, reads them back at the same time, and says whether they are the same.
BULK = """
import hashlib, os, socket, sys, threading
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
while sock.recv(1) != b"\\n": pass
data = os.urandom(3_000_000)
threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)), daemon=True).start()
back = b""
while piece := sock.recv(1 << 16): back += piece
print("the same" if back == data else f"{len(back)} bytes")
"""


def entry(name: str, cidr: str | None, mode: str, **more: object) -> dict:
    return {"name": name, "mode": mode, **({"cidrs": [cidr]} if cidr else {}), **more}


def test_at_the_tunnel_port_all_ports_of_a_pod_share_a_tunnel_and_each_stream_says_its_own(world):
    world.take_up(entry("one", f"{MESHED}/32", "require", tunnelPort=15008))
    assert world.dial(MESHED) == "hello from 127.0.0.6 ping"
    assert world.dial(MESHED, 9999) == "reset"  # nobody listens there
    assert world.dial(MESHED) == "hello from 127.0.0.6 ping"
    assert len(world.lines(world.here, "handshake", destination=f"{MESHED}:15008")) == 1
    mine = world.last(world.here, destination=f"{MESHED}:9999")
    theirs = world.last(world.meshed, destination=f"{MESHED}:9999")
    assert mine["reason"] == theirs["reason"] == "connect_failed"
    assert mine["connection_id"] == theirs["connection_id"]


def test_bulk_leaves_the_tunnel_by_the_tunnel_port_and_arrives_unchanged(world):
    world.take_up(entry("one", f"{MESHED}/32", "require", tunnelPort=15008))
    assert world.dial(MESHED) == "hello from 127.0.0.6 ping"
    before = len(world.lines(world.here, "handshake", destination=f"{MESHED}:15008"))
    assert world.here.run(sys.executable, "-c", BULK, MESHED, 8080) == "the same\n"
    assert len(world.lines(world.here, "handshake", destination=f"{MESHED}:15008")) == before + 1
    line = world.last(world.meshed, destination=f"{MESHED}:8080", bytes_received=3_000_000)
    assert line["flag"] == "-"


def test_nobody_gets_at_the_sidecars_own_ports_by_a_stream(world):
    world.take_up(entry("one", f"{MESHED}/32", "require", tunnelPort=15008))
    for port in (15006, 15001, 15090):
        assert world.dial(MESHED, port) == "reset"
        line = world.last(world.meshed, destination=f"{MESHED}:{port}")
        assert line["reason"] == "no_original_destination"
        assert "a port of the sidecar's own" in line["message"]


def test_plaintext_at_the_tunnel_port_is_refused(world):
    world.take_up()
    talkative = (
        f"import socket; s = socket.create_connection(('{MESHED}', 15008), timeout=10); s.sendall(b'GET / HTTP/1.1');"
        "print('heard nothing' if not s.recv(10) else '')"
    )
    subprocess.run(world.here.words(sys.executable, "-c", talkative), capture_output=True, timeout=60, check=False)
    line = world.last(world.meshed, destination=f"{MESHED}:15008", reason="not_tls")
    assert line["flag"] == "TLS_FAILURE"


def test_endpoints_stand_for_an_address_that_no_machine_has(world):
    world.take_up(
        entry("vip", f"{VIP}/32", "require", ports=[80], tunnelPort=15008, endpoints=[{"address": f"{MESHED}:8080"}])
    )
    assert world.dial(VIP, 80) == "hello from 127.0.0.6 ping"
    line = world.last(world.here, destination=f"{VIP}:80")
    assert (line["peer"], line["endpoint"], line["flag"]) == ("vip", f"{MESHED}:8080", "-")


@pytest.mark.parametrize("more", [{}, {"tunnelPort": 15008}])
def test_require_gets_nothing_through_to_a_pod_without_a_sidecar(world, more):
    world.take_up(entry("strict", f"{PLAIN}/32", "require", **more))
    assert world.dial(PLAIN) == "reset"


def test_prefer_reaches_both_and_says_which_one_it_reaches_as_plaintext(world):
    world.take_up(entry("both", "10.78.0.0/16", "prefer", tunnelPort=15008))
    before = world.metric("qbitel_plaintext_fallbacks_total", peer="both", reason="tunnel_port_refused")
    assert world.dial(MESHED) == "hello from 127.0.0.6 ping"
    assert world.dial(PLAIN) == "hello from 10.78.1.1 ping"
    assert world.last(world.here, destination=f"{MESHED}:8080", peer="both")["group"] == "X25519MLKEM1024"
    line = world.last(world.here, destination=f"{PLAIN}:8080", peer="both")
    assert (line["group"], line["fallback"]) == (None, "tunnel_port_refused")
    assert world.metric("qbitel_plaintext_fallbacks_total", peer="both", reason="tunnel_port_refused") == before + 1
    assert f"{PLAIN}:15008 of both speaks no TLS of the mesh" in world.here.err.read_text()


def test_prefer_does_not_become_plaintext_when_a_sidecar_dies(world):
    world.take_up(entry("dies", f"{MESHED}/32", "prefer", tunnelPort=15008))
    assert world.dial(MESHED) == "hello from 127.0.0.6 ping"
    world.meshed.sidecar.kill()
    world.meshed.sidecar.wait()
    assert world.dial(MESHED) == "reset"
    line = world.last(world.here, peer="dies", reason="fallback_withheld")
    assert line["flag"] == "TLS_FAILURE"
    assert "somebody may want just that" in line["message"]
    world.start(world.meshed, "api")
    assert world.dial(MESHED) == "hello from 127.0.0.6 ping"


def test_a_host_of_the_document_is_whatever_address_its_name_has(world):
    world.take_up(entry("by-name", None, "require", hosts=["api.shop.svc"]))
    before = len(world.lines(world.here, peer="by-name"))
    world.until(lambda: world.dial(MESHED) and len(world.lines(world.here, peer="by-name")) > before, world.here)
    assert world.last(world.here, peer="by-name")["group"] == "X25519MLKEM1024"


def test_off_passes_where_a_larger_network_requires(world):
    world.take_up(entry("all", "10.78.0.0/16", "require"), entry("not-this", f"{PLAIN}/32", "off", ports=[8080]))
    assert world.dial(PLAIN) == "hello from 10.78.1.1 ping"
    assert world.last(world.here, destination=f"{PLAIN}:8080", peer="not-this")["group"] is None
    assert world.dial(MESHED) == "hello from 127.0.0.6 ping"


def test_a_destination_rule_says_whether_a_service_is_dialled_by_the_mesh_or_as_plain_tcp(world):
    host, other = "plain.default.svc.cluster.local", "meshed.default.svc.cluster.local"
    pin = ["spiffe://cluster.local/ns/default/sa/*"]
    world.take_up(
        entry("mesh", None, "require", identities=pin, services={host: [PLAIN]}),
        entry("outside", None, "off", services={other: [MESHED]}),
    )
    assert world.dial(PLAIN) == "reset"
    assert world.dial(MESHED) == "reset"  # it is STRICT
    world.rule(host, "DISABLE")
    assert world.dial(PLAIN) == "hello from 10.78.1.1 ping"
    line = world.last(world.here, destination=f"{PLAIN}:8080", peer=f"{host}:*", flag="-")
    assert (line["group"], "fallback" in line) == (None, False)
    world.rule(other, "ISTIO_MUTUAL")
    assert world.dial(MESHED) == "hello from 127.0.0.6 ping"
    assert world.last(world.here, destination=f"{MESHED}:8080", peer=f"{other}:*")["group"] == "X25519MLKEM1024"
    assert world.dial(PLAIN) == "reset"
