"""Policies in front of real sidecars, on both of their paths: connections of their own, and streams of a tunnel."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import signal
import socket
import socketserver
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.proxy.conftest import PATIENCE
from tests.proxy.policy.conftest import allow, mode_of
from tests.support.policies import document

WEB = "cluster.local/ns/default/sa/web"
API = "cluster.local/ns/default/sa/api"


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


@pytest.fixture(scope="module")
def echo():
    """The port of an application that says everything back."""
    with _Server(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


class Governed:
    """A sidecar before `echo` with a folder of policies, and two clients' sidecars: with tunnels and without."""

    def __init__(self, start, folder, pki, target: int, *more: object, ready: bool = True) -> None:
        self.start, self.pki, self.folder = start, pki, folder
        folder.mkdir(exist_ok=True)
        self.sidecar = start(
            "proxy", "--no-capture", "--certs", pki.base / "api",
            "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{target}", "--workload-labels", "app=api",
            "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy", folder,
            *more, ready=ready,
        )  # fmt: skip

    def client(self, *more: object, certs: str = "web"):
        return self.start(
            "proxy", "--no-capture", "--certs", self.pki.base / certs, "--explicit-outbound",
            f"127.0.0.1:0=127.0.0.1:{self.sidecar.port('inbound')}", "--metrics", "127.0.0.1:0",
            "--health", "127.0.0.1:0", *more,
        )  # fmt: skip

    def write(self, *documents: str, name: str = "policy.yaml") -> None:
        temporary = self.folder / ".new"
        temporary.write_text("---\n".join(documents))
        temporary.rename(self.folder / name)

    def apply(self, *documents: str) -> None:
        """Put these in force, and return when they are."""
        generation = self.generation()
        self.write(*documents)
        os.kill(self.sidecar.process.pid, signal.SIGHUP)
        self.sidecar.wait_for(lambda: self.generation() > generation)

    def generation(self) -> int:
        return self.sidecar.messages.count("policies in force (generation ")

    def refusals(self, reason: str) -> list[dict]:
        return [line for line in self.sidecar.lines() if line["reason"] == reason]


@pytest.fixture(scope="module")
def governed(qbitel_for_all, pki, echo, tmp_path_factory):
    return Governed(qbitel_for_all, tmp_path_factory.mktemp("governed") / "policies", pki, echo)


@pytest.fixture(scope="module")
def clients(governed):
    """The client's sidecar of each path."""
    return {"tunnel": governed.client(), "single": governed.client("--no-tunnels")}


@pytest.fixture(params=["tunnel", "single"])
def client(request, clients):
    return clients[request.param]


def echoes(port: int, data: bytes = b"hello") -> bool:
    """Whether a connection to `port` says `data` back; False where it is reset or closed instead."""
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
        except ConnectionResetError:  # it was refused before connect() looked whether it was accepted
            return False
        return answered(sock, data)


def answered(sock: socket.socket, data: bytes = b"hello") -> bool:
    try:
        sock.sendall(data)
        received = b""
        while len(received) < len(data):
            if not (piece := sock.recv(65536)):
                return False
            received += piece
    except (ConnectionResetError, BrokenPipeError):
        return False
    return received == data


def policy(action: str, rule: dict, **metadata) -> str:
    return document(
        "AuthorizationPolicy", {"action": action, "rules": [rule]}, name="rule", namespace="default", **metadata
    )


def from_(**source) -> dict:
    return {"from": [{"source": source}]}


def when(key: str, **values) -> dict:
    return {"when": [{"key": key, **values}]}


PORT = "the application's"  # put in when it is known

# Each field of the TCP part: a rule that matches a connection of `web` from 127.0.0.1, and one that does not.
FIELDS = {
    "principals": (from_(principals=[WEB]), from_(principals=[API])),
    "notPrincipals": (from_(notPrincipals=[API]), from_(notPrincipals=["*/sa/web"])),
    "namespaces": (from_(namespaces=["default"]), from_(namespaces=["bank"])),
    "notNamespaces": (from_(notNamespaces=["bank"]), from_(notNamespaces=["def*"])),
    "serviceAccounts": (from_(serviceAccounts=["default/web"]), from_(serviceAccounts=["default/api"])),
    "notServiceAccounts": (from_(notServiceAccounts=["api"]), from_(notServiceAccounts=["web"])),
    "ipBlocks": (from_(ipBlocks=["127.0.0.0/8"]), from_(ipBlocks=["10.0.0.0/8", "fd00::/8"])),
    "notIpBlocks": (from_(notIpBlocks=["10.0.0.0/8"]), from_(notIpBlocks=["127.0.0.1"])),
    "remoteIpBlocks": (from_(remoteIpBlocks=["127.0.0.1"]), from_(remoteIpBlocks=["127.0.0.2"])),
    "notRemoteIpBlocks": (from_(notRemoteIpBlocks=["127.0.0.2"]), from_(notRemoteIpBlocks=["127.0.0.0/8"])),
    "ports": ({"to": [{"operation": {"ports": [PORT]}}]}, {"to": [{"operation": {"ports": ["1"]}}]}),
    "notPorts": ({"to": [{"operation": {"notPorts": ["1"]}}]}, {"to": [{"operation": {"notPorts": [PORT]}}]}),
    "source.ip": (when("source.ip", values=["127.0.0.1"]), when("source.ip", notValues=["127.0.0.0/8"])),
    "remote.ip": (when("remote.ip", values=["127.0.0.1"]), when("remote.ip", values=["10.1.1.1"])),
    "source.principal": (when("source.principal", values=[WEB]), when("source.principal", notValues=["*web"])),
    "source.namespace": (when("source.namespace", values=["default"]), when("source.namespace", values=["x"])),
    "destination.ip": (when("destination.ip", values=["127.0.0.1"]), when("destination.ip", values=["10.1.1.1"])),
    "destination.port": (when("destination.port", values=[PORT]), when("destination.port", values=["1"])),
    "connection.sni": (when("connection.sni", notValues=["x"]), when("connection.sni", values=["x"])),
}


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_decides_in_allow_and_in_deny_on_both_paths(governed, clients, echo, field):
    matching, other = FIELDS[field]
    for action, rule, expected in (
        ("ALLOW", matching, True), ("ALLOW", other, False), ("DENY", matching, False), ("DENY", other, True),
    ):  # fmt: skip
        governed.apply(policy(action, rule).replace(PORT, f'"{echo}"'))
        for path, client in clients.items():
            assert echoes(client.port("outbound")) is expected, (field, action, path)


def test_a_denial_says_reason_both_identities_policy_and_rule_and_is_counted(governed, clients):
    for path, client in clients.items():
        governed.apply(policy("DENY", from_(principals=[WEB])), allow("*"))
        seen = len(governed.refusals("denied_by_policy"))
        assert not echoes(client.port("outbound"))
        governed.sidecar.wait_for(lambda: len(governed.refusals("denied_by_policy")) > seen)  # noqa: B023
        line = governed.refusals("denied_by_policy")[-1]
        assert (line["flag"], line["policy"]) == ("DENY", "default/rule")
        assert line["local_identity"].endswith("/sa/api")
        assert line["peer_identity"].endswith("/sa/web")
        assert "rules[0] of the DENY policy default/rule" in line["message"]
        assert line["received_as"] == "mesh"
        if path == "tunnel":
            told = (line["connection_id"], "denied_by_peer")
            client.wait_for(lambda: told in [(one["connection_id"], one["reason"]) for one in client.lines()])  # noqa: B023
        else:
            client.wait_for(lambda: any("access_denied" in one["message"] for one in client.lines()))  # noqa: B023
    assert governed.sidecar.metric("qbitel_policy_decisions_total", decision="deny", policy="default/rule") >= 2
    assert governed.sidecar.metric("qbitel_connections_refused_total", reason="denied_by_policy") >= 2
    assert "denied_by_policy" in governed.sidecar.messages


def test_deny_goes_before_allow_and_an_allow_policy_means_that_all_else_is_denied(governed, client):
    governed.apply(allow(API, name="another"))
    assert not echoes(client.port("outbound"))
    governed.apply(allow(API, name="another"), allow(WEB))
    assert echoes(client.port("outbound"))
    governed.apply(allow(WEB), policy("DENY", from_(namespaces=["default"])))
    assert not echoes(client.port("outbound"))


def test_audit_and_dry_run_let_pass_and_are_counted_and_logged(governed, client):
    dry = policy("DENY", from_(principals=[WEB]), annotations={"istio.io/dry-run": "true"})
    governed.apply(dry, allow("*"), allow(WEB, name="audited", action="AUDIT"))
    seen = len(governed.sidecar.lines())
    assert echoes(client.port("outbound"))
    governed.sidecar.wait_for(lambda: len(governed.sidecar.lines()) > seen)
    line = governed.sidecar.lines()[-1]
    assert (line["flag"], line["policy"], line["policy_audited"]) == ("-", "default/allow", "default/audited")
    assert "default/rule" in line["policy_dry_run"]
    for decision, name in (("dry_run_deny", "default/rule"), ("audit", "default/audited")):
        assert governed.sidecar.metric("qbitel_policy_decisions_total", decision=decision, policy=name) >= 1


def test_open_connections_are_reset_when_the_policies_change_and_only_those(governed, clients):
    governed.apply(allow("*"))
    with contextlib.ExitStack() as stack:
        api = governed.client(certs="api")
        socks = {
            path: stack.enter_context(socket.create_connection(("127.0.0.1", one.port("outbound")), timeout=PATIENCE))
            for path, one in {**clients, "bystander": api}.items()
        }
        for sock in socks.values():
            assert answered(sock)
        # The stream becomes bulk and moves to a connection of its own: what it was let in by moves with it.
        moved = stack.enter_context(
            socket.create_connection(("127.0.0.1", clients["tunnel"].port("outbound")), timeout=PATIENCE)
        )
        for _ in range(24):
            assert answered(moved, bytes(256 * 1024))
        seen = len(governed.refusals("denied_by_policy"))
        governed.apply(allow(API))
        for path in ("tunnel", "single"):
            assert not answered(socks[path])
        assert not answered(moved)
        assert answered(socks["bystander"])
        governed.sidecar.wait_for(lambda: len(governed.refusals("denied_by_policy")) == seen + 3)
        assert {line["flag"] for line in governed.refusals("denied_by_policy")[seen:]} == {"DENY"}
        assert "3 open connections are not let in by the new policies" in governed.sidecar.messages


# Modes


MESH = mode_of("STRICT", namespace="istio-system", name="mesh")
NAMESPACE = mode_of("PERMISSIVE", name="namespace")
SELECTED = {"app": "api"}


def plaintext_passes(governed: Governed) -> bool:
    return echoes(governed.sidecar.port("inbound"))


def test_the_mode_is_that_of_the_narrowest_level(governed, clients, echo):
    governed.apply(MESH)
    assert not plaintext_passes(governed)
    governed.apply(MESH, NAMESPACE)
    assert plaintext_passes(governed)
    governed.apply(MESH, NAMESPACE, mode_of("STRICT", name="workload", selector=SELECTED))
    assert not plaintext_passes(governed)
    port = mode_of("STRICT", name="workload", selector=SELECTED, ports={echo: "PERMISSIVE"})
    governed.apply(MESH, NAMESPACE, port)
    assert plaintext_passes(governed)
    other_port = mode_of("STRICT", name="workload", selector=SELECTED, ports={1: "PERMISSIVE"})
    governed.apply(MESH, NAMESPACE, other_port)
    assert not plaintext_passes(governed)
    governed.apply(mode_of("DISABLE", name="workload", selector={"app": "other"}))
    assert not plaintext_passes(governed)  # nobody says anything about us: --mode, which is STRICT
    for mode in (MESH, NAMESPACE, port):
        governed.apply(mode)
        assert all(echoes(client.port("outbound")) for client in clients.values())


@pytest.mark.parametrize("level", ["mesh", "namespace", "workload", "port"])
def test_disable_hands_everything_to_the_application_as_bytes(governed, echo, level):
    governed.apply(
        {
            "mesh": mode_of("DISABLE", namespace="istio-system"),
            "namespace": mode_of("DISABLE"),
            "workload": mode_of("DISABLE", selector=SELECTED),
            "port": mode_of("STRICT", selector=SELECTED, ports={echo: "DISABLE"}),
        }[level]
    )
    hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"  # would be TLS, if anybody looked
    assert echoes(governed.sidecar.port("inbound"), hello)
    governed.sidecar.wait_for(lambda: governed.sidecar.lines()[-1]["received_as"] == "bytes")


def test_plaintext_that_passes_is_counted_by_where_it_came_from_and_named_once(governed):
    governed.apply(mode_of("PERMISSIVE"))
    before = governed.sidecar.metric("qbitel_plaintext_peer_connections_total", source="127.0.0.1")
    for _ in range(2):
        assert plaintext_passes(governed)
    assert governed.sidecar.metric("qbitel_plaintext_peer_connections_total", source="127.0.0.1") == before + 2
    assert governed.sidecar.messages.count("127.0.0.1 comes without TLS of the mesh") == 1
    governed.sidecar.wait_for(lambda: governed.sidecar.lines()[-1]["received_as"] == "plaintext")
    (shown,) = json.loads(governed.sidecar.get("admin", "/config_dump")[1])["workers"]
    assert shown["policy"]["mode"] == "PERMISSIVE"
    assert [peer["source"] for peer in shown["policy"]["plaintext_peers"]] == ["127.0.0.1"]


def test_the_application_s_own_tls_passes_as_it_came_and_is_told_from_the_mesh_s(qbitel, pki, tmp_path):
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Tls(_Server):
        def get_request(self):
            sock, address = super().get_request()
            return context.wrap_socket(sock, server_side=True), address

    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with Tls(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        governed = Governed(qbitel, tmp_path / "policies", pki, server.server_address[1])
        governed.apply(mode_of("PERMISSIVE"))
        plain = socket.create_connection(("127.0.0.1", governed.sidecar.port("inbound")), timeout=PATIENCE)
        with plain, trusting.wrap_socket(plain, server_hostname="localhost") as client:
            assert answered(client)
        assert echoes_tls(governed.client(), trusting)  # the application's TLS within the mesh's
        governed.sidecar.wait_for(lambda: len(governed.sidecar.lines()) == 2)
        assert [line["received_as"] for line in governed.sidecar.lines()] == ["foreign_tls", "mesh"]
        server.shutdown()
        thread.join()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """The files of a certificate for localhost and its key, as any application has them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "tls.crt", folder / "tls.key"


def echoes_tls(client, context: ssl.SSLContext) -> bool:
    plain = socket.create_connection(("127.0.0.1", client.port("outbound")), timeout=PATIENCE)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
        return answered(sock)


def test_plaintext_has_no_identity_that_an_allow_policy_could_mean(governed):
    governed.apply(mode_of("PERMISSIVE"), allow("*"))
    assert not plaintext_passes(governed)
    governed.apply(mode_of("PERMISSIVE"), policy("ALLOW", from_(ipBlocks=["127.0.0.0/8"])))
    assert plaintext_passes(governed)


def test_open_plaintext_is_reset_when_strict_comes_into_force(governed):
    governed.apply(mode_of("PERMISSIVE"))
    with socket.create_connection(("127.0.0.1", governed.sidecar.port("inbound")), timeout=PATIENCE) as sock:
        assert answered(sock)
        seen = len(governed.refusals("plaintext_refused"))
        governed.apply(mode_of("STRICT"))
        assert not answered(sock)
        governed.sidecar.wait_for(lambda: len(governed.refusals("plaintext_refused")) == seen + 1)


# Reloads


def test_a_hundred_reloads_under_load_cause_no_error(governed, clients):
    governed.apply(allow("*"))
    stop = threading.Event()
    failures: list[str] = []
    done = itertools.count()

    def load(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as kept:
            while not stop.is_set():
                if not (answered(kept) and echoes(port)):
                    failures.append(f"through {port}")
                    return
                next(done)

    threads = [threading.Thread(target=load, args=(one.port("outbound"),)) for one in clients.values()]
    for thread in threads:
        thread.start()
    try:
        for number in range(100):
            governed.apply(allow(WEB, name=f"allow-{number}"), allow(API, action="DENY", name="deny"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert next(done) > 0


def test_a_broken_file_leaves_the_last_good_policies_in_force_and_is_named_with_its_line(governed, clients):
    governed.apply(allow(WEB))
    failed = governed.sidecar.metric("qbitel_policy_reloads_total", result="failed")
    governed.write(allow(API, name="x"), "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: 3\n")
    os.kill(governed.sidecar.process.pid, signal.SIGHUP)
    governed.sidecar.wait_for(lambda: "the policies were not reloaded" in governed.sidecar.messages)
    line = next(line for line in governed.sidecar.messages.splitlines() if "were not reloaded" in line)
    assert "policy.yaml:" in line
    assert governed.sidecar.metric("qbitel_policy_reloads_total", result="failed") == failed + 1
    assert all(echoes(client.port("outbound")) for client in clients.values())
    assert governed.sidecar.get("health", "/healthz/ready")[0] == 200


def test_a_changed_folder_is_found_without_a_signal(governed, clients):
    generation = governed.generation()
    governed.write(allow(API, name="found"))
    governed.sidecar.wait_for(lambda: governed.generation() > generation)
    assert not echoes(clients["single"].port("outbound"))


def test_with_policies_that_cannot_be_read_a_sidecar_starts_closed_and_opens_when_they_can(
    qbitel, pki, echo, tmp_path, dial
):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "policy.yaml").write_text(mode_of("STRONG"))
    governed = Governed(qbitel, folder, pki, echo, "--mode", "PERMISSIVE", ready=False)
    sidecar = governed.sidecar
    sidecar.wait_for(lambda: "nobody is let in until they can" in sidecar.messages)
    sidecar.wait_for(lambda: "health on" in sidecar.messages)
    status, obstacle = sidecar.get("health", "/healthz/ready")
    assert status == 503
    assert "policy.yaml:" in obstacle
    client = governed.client()
    assert not echoes(client.port("outbound"))
    assert not plaintext_passes(governed)
    governed.apply(mode_of("PERMISSIVE"))
    sidecar.wait_ready()
    assert sidecar.get("health", "/healthz/ready")[0] == 200
    assert echoes(client.port("outbound"))
    assert plaintext_passes(governed)


def test_a_folder_that_does_not_exist_is_told_before_anything_is_bound(qbitel, pki, echo, tmp_path):
    running = qbitel(
        "proxy", "--no-capture", "--certs", pki.base / "api", "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{echo}",
        "--policy", tmp_path / "nowhere", ready=False,
    )  # fmt: skip
    assert running.process.wait(PATIENCE) == 2
    assert running.messages.count("\n") == 1
    assert "--policy" in running.messages


def test_all_workers_take_up_what_changes(qbitel, pki, echo, tmp_path):
    governed = Governed(qbitel, tmp_path / "policies", pki, echo, "--workers", "2")
    client = governed.client("--no-tunnels")
    governed.write(allow(API))
    os.kill(governed.sidecar.process.pid, signal.SIGHUP)
    governed.sidecar.wait_for(lambda: governed.sidecar.metric("qbitel_policy_generation") == 2)  # the least of them
    assert not any(echoes(client.port("outbound")) for _ in range(8))


# Limits


def test_a_source_that_connects_too_fast_is_refused_and_told_so(qbitel, pki, echo, tmp_path):
    limits = ("--connection-rate", "0.001", "--connection-burst", "3")
    governed = Governed(qbitel, tmp_path / "policies", pki, echo, *limits)
    tunnel, single = governed.client(), governed.client("--no-tunnels")
    assert echoes(tunnel.port("outbound"))
    assert echoes(single.port("outbound"))
    assert echoes(tunnel.port("outbound"))
    for client in (tunnel, single):  # one identity, whichever way it comes
        assert not echoes(client.port("outbound"))
    assert echoes(governed.client(certs="api").port("outbound"))
    governed.sidecar.wait_for(lambda: len(governed.refusals("rate_limited")) == 2)
    assert {line["flag"] for line in governed.refusals("rate_limited")} == {"RATE_LIMITED"}
    tunnel.wait_for(lambda: [line for line in tunnel.lines() if line["reason"] == "rate_limited"])


def test_a_source_that_holds_too_many_connections_gets_another_when_one_ends(qbitel, pki, echo, tmp_path):
    governed = Governed(qbitel, tmp_path / "policies", pki, echo, "--max-connections-per-peer", "2")
    tunnel, single = governed.client(), governed.client("--no-tunnels")
    with socket.create_connection(("127.0.0.1", single.port("outbound")), timeout=PATIENCE) as second:
        assert answered(second)
        with socket.create_connection(("127.0.0.1", tunnel.port("outbound")), timeout=PATIENCE) as first:
            assert answered(first)
            for client in (tunnel, single):
                assert not echoes(client.port("outbound"))
        governed.sidecar.wait_for(lambda: echoes(tunnel.port("outbound")))
    refused = governed.refusals("peer_connection_limit")
    assert {line["flag"] for line in refused} == {"CIRCUIT_OPEN"}
    assert "--max-connections-per-peer" in refused[0]["message"]


def test_max_connections_of_a_destination_rule_holds_for_the_workload(qbitel, pki, echo, tmp_path):
    governed = Governed(qbitel, tmp_path / "policies", pki, echo)
    rule = {"host": "api", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 1}}}}
    governed.apply(document("DestinationRule", rule, namespace="default"))
    client = governed.client()
    with socket.create_connection(("127.0.0.1", client.port("outbound")), timeout=PATIENCE) as sock:
        assert answered(sock)
        assert not echoes(client.port("outbound"))
    governed.sidecar.wait_for(lambda: echoes(client.port("outbound")))
    assert governed.refusals("workload_connection_limit")[0]["flag"] == "CIRCUIT_OPEN"
