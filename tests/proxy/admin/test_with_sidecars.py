"""The admin port of real sidecars: what is shown is what is there, for one process and for several."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

ADMIN = ("--admin", "127.0.0.1:0")


def ask(sidecar, path: str, method: str = "GET"):
    """(status, body) of the admin port."""
    url = f"http://127.0.0.1:{sidecar.port('admin')}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=15) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def told(sidecar, path: str, method: str = "GET"):
    status, body = ask(sidecar, path, method)
    assert status == 200, body
    return json.loads(body)


def test_both_sidecars_show_a_connection_with_both_identities_under_one_id(
    inbound_sidecar, outbound_sidecar, application, dial, pki
):
    inbound = inbound_sidecar(application.getsockname()[1], *ADMIN)
    outbound = outbound_sidecar(inbound.port("inbound"), *ADMIN)
    client = dial(outbound.port("outbound"))
    with application.accept()[0] as accepted:
        client.sendall(b"12345")
        assert accepted.recv(10) == b"12345"
        (near,) = told(outbound, "/connections")["rows"]
        (far,) = told(inbound, "/connections")["rows"]
        assert near["connection_id"] == far["connection_id"] is not None
        assert near["tunnel"] == far["tunnel"] is not None
        assert (near["local_identity"], near["peer_identity"]) == (pki.identity("web"), pki.identity("api"))
        assert (far["local_identity"], far["peer_identity"]) == (pki.identity("api"), pki.identity("web"))
        assert near["group"] == far["group"] == "X25519MLKEM1024"
        assert near["bytes_received"] == far["bytes_received"] == 5
        (tunnel,) = told(inbound, "/tunnels")["rows"]
        assert (tunnel["streams"], tunnel["connection_id"]) == (1, far["tunnel"])
        assert inbound.metric("qbitel_tunnel_streams_open", direction="inbound") == 1
        assert pki.identity("web") in ask(inbound, "/connections?format=text")[1]
        (certificates,) = told(inbound, "/certs")["workers"]
        assert certificates["identity"] == pki.identity("api")
        client.close()
        assert accepted.recv(10) == b""
    inbound.wait_for(lambda: told(inbound, "/connections")["total"] == 0)
    assert inbound.metric("qbitel_tunnel_streams_open", direction="inbound") == 0


def test_a_connection_without_a_tunnel_has_one_id_in_both_logs_too(
    inbound_sidecar, outbound_sidecar, application, dial
):
    inbound = inbound_sidecar(application.getsockname()[1])
    outbound = outbound_sidecar(inbound.port("inbound"), "--no-tunnels")
    client = dial(outbound.port("outbound"))
    with application.accept()[0] as accepted:
        client.close()
        assert accepted.recv(1) == b""
    (near,) = outbound.wait_for(outbound.lines)
    (far,) = inbound.wait_for(inbound.lines)
    assert len(near["connection_id"]) == 32
    assert near["connection_id"] == far["connection_id"]


@pytest.fixture(params=["1", "2"])
def plain(request, inbound_sidecar, application):
    """A sidecar of one process, or of two workers."""
    return inbound_sidecar(application.getsockname()[1], "--workers", request.param, "--mode", "DISABLE", *ADMIN)


def test_one_answer_shows_the_connections_of_all_workers(plain, application, dial):
    clients = [dial(plain.port("inbound")) for _ in range(8)]
    accepted = [application.accept()[0] for _ in clients]
    table = plain.wait_for(lambda: (found := told(plain, "/connections"))["total"] == 8 and found)
    names = {f"127.0.0.1:{client.getsockname()[1]}" for client in clients}
    assert {row["source"] for row in table["rows"]} == names
    assert len(told(plain, "/connections?limit=3&offset=6")["rows"]) == 2
    assert sum(each["VmRSS_kB"] > 0 for each in told(plain, "/memory")["workers"]) >= 1
    for sock in accepted:
        sock.close()


def test_the_level_of_the_log_changes_while_it_runs(plain):
    assert {each["level"] for each in told(plain, "/logging")["workers"]} == {"info"}
    assert {each["level"] for each in told(plain, "/logging?level=error", "POST")["workers"]} == {"error"}
    assert {each["level"] for each in told(plain, "/logging")["workers"]} == {"error"}
    assert ask(plain, "/logging?level=loud", "POST")[0] == 400


def test_drain_takes_it_out_of_service_and_leaves_it_running(plain, application, dial):
    assert ask(plain, "/ready") == (200, "ready\n")
    told(plain, "/drain", "POST")
    assert ask(plain, "/ready") == plain.get("health", "/healthz/ready") == (503, "draining\n")
    late = dial(plain.port("inbound"))
    with application.accept()[0] as accepted:
        late.sendall(b"served")
        assert accepted.recv(10) == b"served"
        late.close()
    assert plain.process.poll() is None
    assert plain.stop() == 0


def test_quitquitquit_ends_it_at_once_whatever_is_open(plain, application, dial):
    client = dial(plain.port("inbound"))
    with application.accept()[0]:
        told(plain, "/quitquitquit", "POST")
        assert plain.process.wait(15) == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_the_configuration_is_shown_without_a_key(plain, pki):
    body = ask(plain, "/config_dump")[1]
    shown = json.loads(body)
    assert shown["config"]["mode"] == "DISABLE"
    assert shown["config"]["files"]["key"] == str(pki.base / "api" / "tls.key")
    assert "PRIVATE" not in body


def test_without_the_flag_there_is_no_admin_port_where_nothing_is_captured(inbound_sidecar):
    assert " INFO admin on " not in inbound_sidecar(9).messages


def test_an_address_that_others_can_dial_is_refused(qbitel, pki):
    refused = qbitel("proxy", "--no-capture", "--certs", pki.base / "api", "--explicit-inbound",
                     "127.0.0.1:0=127.0.0.1:9", "--admin", "0.0.0.0:15000", ready=False)  # fmt: skip
    assert refused.process.wait(15) == 2
    assert "give a loopback address" in refused.messages
