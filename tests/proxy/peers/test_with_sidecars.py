"""Real sidecars: one outbound with a peers document, several inbound, and applications that count what reaches them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import signal
import socket
import threading
import urllib.request

import pytest

PATIENCE = 15


class Application:
    """A server that answers each connection's first byte with its name, until it is closed."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.held: list[socket.socket] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self.listener.accept()[0],), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while sock.recv(1):
                sock.sendall(self.name)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(PATIENCE)


@pytest.fixture
def applications():
    with contextlib.ExitStack() as stack:

        def make(name: bytes) -> Application:
            return stack.enter_context(contextlib.closing(Application(name)))

        yield make


@pytest.fixture
def document(tmp_path):
    """Write a peers document with one entry, for everything on this machine; its path."""
    path = tmp_path / "peers.yaml"

    def write(*endpoints: object, **more: object):
        entry = {"name": "here", "mode": "require", "cidrs": ["127.0.0.0/8"], **more}
        if endpoints:
            entry["endpoints"] = [{"address": f"127.0.0.1:{one}"} for one in endpoints]
        new = tmp_path / "peers.new"
        new.write_text(json.dumps({"apiVersion": "qbitel.io/v1", "kind": "Peers", "peers": [entry]}))
        return new.replace(path)

    return write


def take_up(sidecar, until: str = "peers in use") -> None:
    """Have the sidecar read its document and its policies now, until it says so once more."""
    before = sidecar.messages.count(until)
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_for(lambda: sidecar.messages.count(until) > before)


@pytest.fixture
def ask(dial):
    """The name of the application that a new connection reaches; b"" where it is reset."""

    def go(sidecar) -> bytes:
        try:
            with dial(sidecar.port("outbound")) as sock:  # whose reset may come before connect() has returned
                sock.sendall(b"?")
                return sock.recv(1)
        except ConnectionError:
            return b""

    return go


def test_connections_go_round_the_endpoints_and_a_new_one_gets_its_share(
    applications, inbound_sidecar, outbound_sidecar, document, ask
):
    inbounds = [inbound_sidecar(applications(name).port) for name in (b"a", b"b")]
    ports = [inbound.port("inbound") for inbound in inbounds]
    outbound = outbound_sidecar(1, "--peers", document(*ports, balancing="roundRobin"))
    assert sorted(ask(outbound) for _ in range(6)) == [b"a"] * 3 + [b"b"] * 3
    assert len(outbound.lines("handshake")) == 2
    third = inbound_sidecar(applications(b"c").port)
    document(*ports, third.port("inbound"), balancing="roundRobin")
    take_up(outbound)
    assert sorted(ask(outbound) for _ in range(6)) == [b"a", b"a", b"b", b"b", b"c", b"c"]
    line = outbound.wait_for(lambda: len(outbound.lines()) == 12 and outbound.lines()[0])
    assert line["peer"] == "here"
    assert line["destination"] == "127.0.0.1:1"
    assert line["endpoint"] in {f"127.0.0.1:{port}" for port in ports}


def test_a_dead_endpoint_costs_no_connection(applications, inbound_sidecar, outbound_sidecar, document, ask):
    inbounds = [inbound_sidecar(applications(name).port) for name in (b"a", b"b")]
    outbound = outbound_sidecar(
        1,
        "--peers",
        document(*(inbound.port("inbound") for inbound in inbounds), outlierEjection={"failures": 2, "time": "1h"}),
    )
    assert {ask(outbound) for _ in range(20)} == {b"a", b"b"}
    inbounds[0].process.kill()
    inbounds[0].process.wait()
    assert [ask(outbound) for _ in range(20)].count(b"b") == 20
    outbound.wait_for(lambda: "is left out for a while (1 of 2" in outbound.messages or ask(outbound) == b"")
    assert outbound.metric("qbitel_endpoint_ejections_total", peer="here") == 1
    assert outbound.metric("qbitel_endpoints_ejected", peer="here") == 1


def test_an_application_that_is_down_behind_its_sidecar_is_left_out(
    applications, inbound_sidecar, outbound_sidecar, document, ask
):
    down, up = applications(b"a"), applications(b"b")
    inbounds = [inbound_sidecar(one.port) for one in (down, up)]
    outbound = outbound_sidecar(
        1,
        "--peers",
        document(
            *(inbound.port("inbound") for inbound in inbounds), balancing="roundRobin",
            outlierEjection={"failures": 2, "time": "1h"},
        ),
    )  # fmt: skip
    down.close()
    answers = [ask(outbound) for _ in range(8)]
    # The application's bytes are on their way when that is known: such a connection cannot be made again elsewhere.
    assert answers.count(b"") == 2
    assert answers[-4:] == [b"b"] * 4
    assert "the sidecar there says connect_failed" in outbound.messages


def test_an_identity_that_is_not_expected_is_refused_and_the_log_says_whose_it_is(
    applications, inbound_sidecar, outbound_sidecar, document, ask, pki
):
    inbound = inbound_sidecar(applications(b"a").port, certs="api")
    outbound = outbound_sidecar(inbound.port("inbound"), "--peers", document(identities=[pki.identity("web")]))
    assert ask(outbound) == b""
    (line,) = outbound.wait_for(outbound.lines)
    assert (line["flag"], line["reason"]) == ("IDENTITY_ERROR", "unexpected_identity")
    assert pki.identity("api") in line["message"]
    assert line["bytes_sent"] == line["bytes_received"] == 0
    document(identities=[pki.identity("api"), pki.identity("web")])
    take_up(outbound)
    assert ask(outbound) == b"a"
    # The tunnel that stands was made under other pins than these.
    document(identities=[pki.identity("web")])
    take_up(outbound)
    assert ask(outbound) == b""
    document()
    take_up(outbound)
    assert ask(outbound) == b"a"


def test_more_connections_than_allowed_are_refused_on_both_paths(
    applications, inbound_sidecar, outbound_sidecar, document, dial, ask
):
    inbound = inbound_sidecar(applications(b"a").port)
    outbound = outbound_sidecar(inbound.port("inbound"), "--peers", document(maxConnections=2))
    held = [dial(outbound.port("outbound")) for _ in range(2)]
    for sock in held:
        sock.sendall(b"?")
        assert sock.recv(1) == b"a"
    assert ask(outbound) == b""  # a tunnel stands
    (line,) = outbound.wait_for(outbound.lines)
    assert (line["flag"], line["reason"]) == ("CIRCUIT_OPEN", "destination_connection_limit")
    held.pop().close()
    outbound.wait_for(lambda: ask(outbound) == b"a")
    assert outbound.metric("qbitel_connections_refused_total", reason="destination_connection_limit") >= 1


def test_a_document_is_replaced_a_hundred_times_under_load_with_zero_errors(
    applications, inbound_sidecar, outbound_sidecar, document, ask
):
    inbounds = [inbound_sidecar(applications(name).port) for name in (b"a", b"b")]
    ports = [inbound.port("inbound") for inbound in inbounds]
    outbound = outbound_sidecar(1, "--peers", document(*ports))
    ended = threading.Event()

    def load() -> list[bytes]:
        answers = []
        while not ended.is_set():
            answers.append(ask(outbound))
        return answers

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = [pool.submit(load) for _ in range(2)]
        try:
            for number in range(100):
                if number % 10 == 9:
                    # Broken, at one moment or another: it changes nothing.
                    (outbound_path := document(*ports)).write_text("peers: [")
                    outbound.process.send_signal(signal.SIGHUP)
                    outbound.wait_for(lambda: "the last good one stays in use" in outbound.messages)
                    assert outbound_path.exists()
                document(*ports[: number % 2 + 1], maxConnections=1000 + number)
                take_up(outbound)
        finally:
            ended.set()
        answers = [answer for one in running for answer in one.result(PATIENCE)]
    assert set(answers) == {b"a", b"b"}
    assert outbound.metric("qbitel_peers_generation") >= 101
    assert outbound.metric("qbitel_connections_refused_total") == 0


def test_a_tunnel_in_use_is_replaced_before_it_is_too_old_and_no_connection_waits(
    applications, inbound_sidecar, outbound_sidecar, document, ask, dial
):
    inbound = inbound_sidecar(applications(b"a").port)
    # Chores come once in a quarter of the stall limit.
    outbound = outbound_sidecar(
        inbound.port("inbound"), "--peers", document(), "--tunnel-max-age", 2, "--stall-timeout", 1
    )
    with dial(outbound.port("outbound")) as held:
        held.sendall(b"?")
        assert held.recv(1) == b"a"
        outbound.wait_for(lambda: len(outbound.lines("handshake")) == 2)
        assert ask(outbound) == b"a"
        held.sendall(b"?")
        assert held.recv(1) == b"a"  # it has never left its first tunnel
    assert outbound.metric("qbitel_connections_refused_total") == 0


def test_a_broken_document_ends_the_start_in_one_line(qbitel, pki, document, tmp_path):
    path = document(mode="always")
    sidecar = qbitel(
        "proxy", "--no-capture", "--certs", pki.base / "web", "--explicit-outbound", "127.0.0.1:0=127.0.0.1:1",
        "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", "--peers", path, ready=False,
    )  # fmt: skip
    assert sidecar.process.wait(PATIENCE) == 2
    (line,) = sidecar.messages.splitlines()
    assert "peers.yaml:1: Peers: peers[0].mode: 'always' is none of require, prefer, off" in line


RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: limits, namespace: {namespace}}}
spec:
  host: here.default.svc.cluster.local
  trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {most}}}}}}}
"""


def replaced(path, text: str) -> None:
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def ruled(sidecar) -> list[tuple[str, int | None]]:
    """The entries to which a rule has added something, as its admin port shows them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{sidecar.port('admin')}/config_dump", timeout=PATIENCE) as answer:
        entries = json.load(answer)["workers"][0]["peers"]["entries"]
    return [(one["rule"], one["max_connections"]) for one in entries if one["rule"]]


def test_a_destination_rule_of_the_folder_limits_what_is_dialled_and_may_change(
    applications, inbound_sidecar, outbound_sidecar, document, dial, ask, tmp_path
):
    policies = tmp_path / "policies"
    policies.mkdir()
    replaced(policies / "limits.yaml", RULE.format(namespace="default", most=2))
    inbound = inbound_sidecar(applications(b"a").port)
    services = {"here.default.svc.cluster.local": ["127.0.0.0/8"]}
    outbound = outbound_sidecar(
        inbound.port("inbound"), "--peers", document(services=services, cidrs=["192.0.2.1/32"]), "--policy", policies,
        "--admin", "127.0.0.1:0",
    )  # fmt: skip
    held = [dial(outbound.port("outbound")) for _ in range(2)]
    for sock in held:
        sock.sendall(b"?")
        assert sock.recv(1) == b"a"
    assert ask(outbound) == b""
    (line,) = outbound.wait_for(outbound.lines)
    assert (line["flag"], line["reason"]) == ("CIRCUIT_OPEN", "destination_connection_limit")
    assert line["peer"] == "here.default.svc.cluster.local:*"
    assert "maxConnections of DestinationRule default/limits" in line["message"]
    assert ruled(outbound) == [("DestinationRule default/limits", 2)]
    replaced(policies / "limits.yaml", RULE.format(namespace="default", most=3))
    outbound.process.send_signal(signal.SIGHUP)
    outbound.wait_for(lambda: ruled(outbound) == [("DestinationRule default/limits", 3)])
    held.append(dial(outbound.port("outbound")))
    held[2].sendall(b"?")
    assert held[2].recv(1) == b"a"  # those that were open are counted on
    assert ask(outbound) == b""
    # A broken file changes nothing, and without a rule there is no limit.
    replaced(policies / "limits.yaml", RULE.format(namespace="default", most="many"))
    take_up(outbound, "the policies were not reloaded")
    assert ask(outbound) == b""
    (policies / "limits.yaml").unlink()
    outbound.process.send_signal(signal.SIGHUP)
    outbound.wait_for(lambda: ruled(outbound) == [])
    assert ask(outbound) == b"a"
