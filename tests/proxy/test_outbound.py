"""The outbound side, and two sidecars together: an application's plain TCP through the mesh and back."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading

import pytest

from proxy import outbound as outbound_side
from proxy import sockets
from proxy.config import Direction, Endpoint, ListenerConfig
from proxy.reasons import Refused
from proxy.routes import Mode
from tests.proxy.peers.world import World

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def module_application():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.settimeout(15)
        yield listener


@pytest.fixture(scope="module")
def inbound(qbitel_for_all, pki, module_application):
    return qbitel_for_all(
        "proxy", "--no-capture", "--certs", pki.base / "api",
        "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{module_application.getsockname()[1]}",
        "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
    )  # fmt: skip


@pytest.fixture(scope="module")
def outbound(qbitel_for_all, pki, inbound):
    return qbitel_for_all(
        "proxy", "--no-capture", "--certs", pki.base / "web",
        "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{inbound.port('inbound')}",
        "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
    )  # fmt: skip


@pytest.fixture
def through(outbound, dial, module_application):
    """(client, application's end) of a new connection through both sidecars."""
    client = dial(outbound.port("outbound"))
    application, _ = module_application.accept()
    application.settimeout(15)
    with application:
        yield client, application


def test_bytes_pass_both_ways_and_both_sidecars_record_the_same(through, outbound, inbound, pki):
    client, application = through
    source = "{}:{}".format(*client.getsockname())
    client.sendall(b"question")
    assert application.recv(100) == b"question"
    application.sendall(b"a longer answer")
    assert client.recv(100) == b"a longer answer"
    client.shutdown(socket.SHUT_WR)
    assert application.recv(100) == b""
    application.close()
    assert client.recv(100) == b""

    def ended():
        return [line for line in outbound.lines() if line["source"] == source]

    (mine,) = outbound.wait_for(ended)
    theirs = inbound.wait_for(lambda: [line for line in inbound.lines() if line["bytes_sent"] == 15])[0]
    assert (mine["bytes_received"], mine["bytes_sent"]) == (8, 15) == (theirs["bytes_received"], theirs["bytes_sent"])
    assert (mine["local_identity"], mine["peer_identity"]) == (pki.identity("web"), pki.identity("api"))
    assert (theirs["local_identity"], theirs["peer_identity"]) == (pki.identity("api"), pki.identity("web"))
    for line in (mine, theirs):
        assert line["profile"] == "qbitel"
        assert line["group"] == "X25519MLKEM1024"
        assert line["signature"] == "mldsa87"
        assert line["cipher_suite"] == "TLS_AES_256_GCM_SHA384"
        assert (line["flag"], line["reason"], line["message"]) == ("-", "-", "")
    assert mine["connection_id"] == theirs["connection_id"] != None  # noqa: E711
    handshakes = outbound.lines("handshake")
    assert {line["group"] for line in handshakes} == {"X25519MLKEM1024"}


def test_ten_megabytes_each_way_at_once_arrive_unchanged(through):
    client, application = through
    sent = {end: os.urandom(10_000_000) for end in (client, application)}
    found = {}

    def feed(end):
        end.sendall(sent[end])
        end.shutdown(socket.SHUT_WR)

    def digest(end):
        running = hashlib.sha256()
        while data := end.recv(1 << 20):
            running.update(data)
        found[end] = running.digest()

    threads = [threading.Thread(target=work, args=(end,)) for work in (feed, digest) for end in (client, application)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert found[application] == hashlib.sha256(sent[client]).digest()
    assert found[client] == hashlib.sha256(sent[application]).digest()


@pytest.mark.parametrize("first", ["client", "application"])
def test_a_reset_crosses_both_sidecars(through, first):
    client, application = through
    client.sendall(b"x")
    assert application.recv(10) == b"x"
    resetting, other = (client, application) if first == "client" else (application, client)
    resetting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    resetting.close()
    with pytest.raises(ConnectionResetError):
        other.recv(10)


def test_metrics_carry_istios_names_and_ours(through, outbound, inbound, pki):
    client, application = through
    before = outbound.metric("istio_tcp_connections_closed_total")
    client.sendall(b"x")
    assert application.recv(10) == b"x"
    client.close()
    assert application.recv(10) == b""
    application.close()
    outbound.wait_for(lambda: outbound.metric("istio_tcp_connections_closed_total") > before)
    principals = {"source_principal": pki.identity("web"), "destination_principal": pki.identity("api")}
    for sidecar, reporter in ((outbound, "source"), (inbound, "destination")):
        labels = {"reporter": reporter, "connection_security_policy": "mutual_tls", **principals}
        assert sidecar.metric("istio_tcp_connections_opened_total", **labels) >= 1
        assert sidecar.metric("istio_tcp_received_bytes_total", **labels) >= 1
        assert sidecar.metric("qbitel_tls_handshakes_total", result="ok", group="X25519MLKEM1024") >= 1
        assert sidecar.metric("qbitel_build_info") == 1
        assert 0 < sidecar.metric("qbitel_cert_expiry_seconds") < 13 * 3600


@pytest.mark.parametrize(
    ("certs", "reason", "advice"),
    [
        ("expired", "alert_received", "renew it"),
        ("other_root", "unknown_root", "same root"),
        ("foreign_domain", "alert_received", "--trust-domain"),
    ],
)
def test_the_application_is_reset_when_the_mesh_refuses_and_the_log_says_why(
    outbound_sidecar, inbound, dial, certs, reason, advice
):
    # The root that other_root trusts is ours, but nobody trusts the one that signed it; so it sees the alert too.
    sidecar = outbound_sidecar(inbound.port("inbound"), certs=certs, ready=False)
    sidecar.wait_for(lambda: " ready: " in sidecar.messages)
    assert ("not ready: no valid certificate" in sidecar.messages) == (certs == "expired")
    client = dial(sidecar.port("outbound"))
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    (line,) = sidecar.wait_for(sidecar.lines)
    if certs == "other_root":
        reason = "alert_received"
        advice = "same ca.crt"
    assert (line["flag"], line["reason"]) == ("IDENTITY_ERROR", reason)
    assert advice in line["message"]
    assert sidecar.metric("qbitel_connections_refused_total", direction="outbound", reason=reason) == 1
    assert sum("refused outbound" in text for text in sidecar.messages.splitlines()) == 1


def test_a_server_that_speaks_no_tls_never_gets_the_applications_bytes(outbound_sidecar, application, dial):
    sidecar = outbound_sidecar(application.getsockname()[1])
    client = dial(sidecar.port("outbound"))
    client.sendall(b"a secret")
    accepted, _ = application.accept()
    with accepted:
        received = accepted.recv(65536)
        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        while data := accepted.recv(65536):
            received += data
    assert b"secret" not in received
    (line,) = sidecar.wait_for(sidecar.lines)
    assert (line["flag"], line["reason"]) == ("TLS_FAILURE", "not_tls")


def test_a_target_that_nobody_listens_on_resets_the_application(outbound_sidecar, dial):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        sidecar = outbound_sidecar(nobody.getsockname()[1])
        with pytest.raises(ConnectionResetError):  # which may come before connect() has returned
            dial(sidecar.port("outbound")).recv(10)
    (line,) = sidecar.wait_for(sidecar.lines)
    assert (line["flag"], line["reason"]) == ("CONNECT", "connect_failed")


@pytest.fixture
def at_once(run, pki, tcp_pair, monkeypatch):
    """Run a scenario with a world, and a function that offers it a connection which was captured on its way to where.

    No rules of interception are needed: where it was going is what they would have told.
    """

    def go(scenario):
        async def main():
            world = World(pki)
            listener = ListenerConfig(direction=Direction.OUTBOUND, bind=Endpoint("127.0.0.1", 0))

            def offer(where: Endpoint) -> bool:
                monkeypatch.setattr(outbound_side, "destination_of", lambda *_: where)
                application, _ = tcp_pair()
                source = sockets.peer_name(application)
                return outbound_side.carry_at_once(listener, world.router, world.services, application, source)

            try:
                await scenario(world, offer)
            finally:
                await world.close()

        run(main())

    return go


def test_a_connection_is_carried_at_once_where_a_tunnel_stands_and_never_waits_for_one(at_once):
    async def scenario(world, offer):
        where = await world.mesh()
        world.entry(Mode.REQUIRE)
        assert not offer(where)
        await world.go(where)
        assert offer(where)
        world.entry(Mode.OFF)
        assert not offer(where)

    at_once(scenario)


def test_what_was_chosen_and_found_cold_is_what_is_dialled(at_once):
    async def scenario(world, offer):
        servers = [await world.mesh(), await world.mesh()]
        world.entry(Mode.REQUIRE, *servers)
        vip = Endpoint("127.0.0.99", 80)
        reached = []
        for _ in range(2):
            assert not offer(vip)
            reached.append((await world.go(vip))[1])
        assert sorted(reached, key=str) == sorted(servers, key=str)
        assert offer(vip)
        assert offer(vip)
        members = world.router.way(vip).group._specs
        assert [member.active for member in members] == [1, 1]

    at_once(scenario)


def test_a_tunnel_in_use_is_a_reason_not_to_fall_back_for_as_long_as_it_is_used(at_once):
    async def scenario(world, offer):
        where = await world.mesh()
        world.entry(Mode.PREFER)
        await world.go(where)
        world.clock.time += 800
        assert offer(where)
        world.clock.time += 800
        assert world.router.memory.since_mesh(where, world.clock.time) == 800

    at_once(scenario)


def test_a_limit_is_told_by_the_phases_and_costs_nobody_a_turn(at_once):
    async def scenario(world, offer):
        where = await world.mesh()
        world.entry(Mode.REQUIRE, where, max_connections=1)
        vip = Endpoint("127.0.0.99", 80)
        await world.go(vip)
        assert offer(vip)
        assert not offer(vip)
        with pytest.raises(Refused):
            await world.go(vip)

    at_once(scenario)
