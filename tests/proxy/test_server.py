"""One sidecar process from its ports to its end: draining, signals, reloads, limits, memory."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from mesh.errors import UserError
from proxy import binding, server
from proxy.config import Limits
from tests.proxy.test_binding import configuration


@pytest.fixture
def held(inbound_sidecar, outbound_sidecar, application, dial):
    """(outbound sidecar, client, application's end): a connection that stands, and 30 s to drain."""
    inbound = inbound_sidecar(application.getsockname()[1])
    outbound = outbound_sidecar(inbound.port("inbound"), "--drain-seconds", "30")
    client = dial(outbound.port("outbound"))
    accepted, _ = application.accept()
    accepted.settimeout(15)
    with accepted:
        client.sendall(b"up")
        assert accepted.recv(10) == b"up"
        yield outbound, client, accepted


def test_sigterm_lets_living_connections_finish_and_serves_late_ones(held, application, dial):
    outbound, client, accepted = held
    port = outbound.port("outbound")
    assert outbound.get("health", "/healthz/ready") == (200, "ready\n")
    outbound.process.send_signal(signal.SIGTERM)
    outbound.wait_for(lambda: "draining: 1 connections" in outbound.messages)
    assert outbound.get("health", "/healthz/ready") == (503, "draining\n")
    assert outbound.get("health", "/healthz/live") == (200, "live\n")
    client.sendall(b"still works")
    assert accepted.recv(100) == b"still works"
    late = dial(port)
    with application.accept()[0] as accepted_late:
        late.sendall(b"the application is not done yet")
        assert accepted_late.recv(100) == b"the application is not done yet"
        late.close()
        assert accepted_late.recv(100) == b""
    client.close()
    assert accepted.recv(10) == b""
    accepted.close()
    assert outbound.process.wait(15) == 0
    assert outbound.lines()[-1]["flag"] == "-"


def test_after_sigterm_it_waits_for_those_who_have_not_heard_of_it(inbound_sidecar, application, dial):
    sidecar = inbound_sidecar(application.getsockname()[1], "--drain-quiet", "60", "--drain-seconds", "60")
    sidecar.process.send_signal(signal.SIGTERM)
    sidecar.wait_for(lambda: "draining: 0 connections" in sidecar.messages)
    assert sidecar.get("health", "/healthz/ready") == (503, "draining\n")
    # It is refused by what it is, and not by nobody being there.
    late = dial(sidecar.port("inbound"))
    late.sendall(b"GET / HTTP/1.1\r\n")
    with pytest.raises(ConnectionResetError):
        late.recv(1)
    assert sidecar.wait_for(sidecar.lines)[0]["reason"] == "plaintext_refused"
    assert sidecar.stop() == 0


def test_a_second_sigterm_ends_now_and_resets_what_is_left(held):
    outbound, client, accepted = held
    outbound.process.send_signal(signal.SIGTERM)
    outbound.wait_for(lambda: "draining" in outbound.messages)
    began = time.monotonic()
    assert outbound.stop() == 0
    assert time.monotonic() - began < 5
    for end in (client, accepted):
        with pytest.raises(ConnectionResetError):
            end.recv(10)
    line = outbound.lines()[-1]
    assert (line["flag"], line["reason"], line["bytes_received"]) == ("DRAIN", "drained", 2)


def test_the_drain_ends_with_its_time(inbound_sidecar, application, dial):
    sidecar = inbound_sidecar(application.getsockname()[1], "--drain-seconds", "0.3", "--mode", "DISABLE")
    client = dial(sidecar.port("inbound"))
    accepted, _ = application.accept()
    with accepted:
        began = time.monotonic()
        assert sidecar.stop(signal.SIGINT) == 0
        assert 0.25 < time.monotonic() - began < 5
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    assert "did not end in time" in sidecar.messages


def test_connections_beyond_the_limit_are_refused_and_counted(inbound_sidecar, application, dial):
    sidecar = inbound_sidecar(application.getsockname()[1], "--max-connections", "2", "--mode", "DISABLE")
    kept = [dial(sidecar.port("inbound")) for _ in range(2)]
    accepted = [application.accept()[0] for _ in kept]
    with pytest.raises(ConnectionResetError):
        dial(sidecar.port("inbound")).recv(10)
    assert sidecar.metric("qbitel_connections_refused_total", reason="connection_limit") == 1
    assert sidecar.metric("qbitel_connections_open", direction="inbound") == 2
    assert sidecar.lines()[-1]["flag"] == "RATE_LIMITED"
    kept[0].close()
    accepted[0].close()
    sidecar.wait_for(lambda: sidecar.metric("qbitel_connections_open") == 1)
    again = dial(sidecar.port("inbound"))
    accepted[0], _ = application.accept()
    again.sendall(b"in again")
    assert accepted[0].recv(100) == b"in again"
    for sock in accepted:
        sock.close()


def test_running_out_of_descriptors_pauses_and_recovers(inbound_sidecar, application, dial):
    def few_descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    sidecar = inbound_sidecar(application.getsockname()[1], "--mode", "DISABLE", preexec=few_descriptors)
    assert "the limit of open files is 40" in sidecar.messages
    clients = [dial(sidecar.port("inbound")) for _ in range(40)]
    sidecar.wait_for(lambda: "cannot accept connections" in sidecar.messages)
    # One descriptor is kept for those who ask what is wrong.
    assert sidecar.get("health", "/healthz/live") == (200, "live\n")
    assert sidecar.metric("qbitel_connections_open") > 0
    accepted = []
    application.settimeout(1)
    while True:
        try:
            accepted.append(application.accept()[0])
        except TimeoutError:
            break
    assert 0 < len(accepted) < 40
    ticks = _cpu_ticks(sidecar.process.pid)
    time.sleep(0.5)
    assert _cpu_ticks(sidecar.process.pid) - ticks < 20, "it spins while it waits for descriptors"
    for sock in (*clients, *accepted):
        sock.close()
    # What was queued meanwhile is accepted and dropped by its dead clients. Once they are through, a new one gets in.
    assert any(_gets_through(dial(sidecar.port("inbound")), application) for _ in range(15))
    assert sidecar.messages.count("cannot accept connections") == 1


def _gets_through(client: socket.socket, application: socket.socket) -> bool:
    """Whether what the client says arrives within the second that application's time-out gives it."""
    try:
        client.sendall(b"alive")
        while True:
            with application.accept()[0] as accepted:
                accepted.settimeout(1)
                if accepted.recv(10) == b"alive":
                    return True
    except OSError:
        return False


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_idle_connections_are_reset(inbound_sidecar, application, dial):
    sidecar = inbound_sidecar(application.getsockname()[1], "--idle-timeout", "0.4", "--mode", "DISABLE")
    client = dial(sidecar.port("inbound"))
    with application.accept()[0] as accepted, pytest.raises(ConnectionResetError):
        assert accepted.fileno() >= 0
        client.recv(10)
    (line,) = sidecar.wait_for(sidecar.lines)
    assert (line["flag"], line["reason"]) == ("TIMEOUT", "idle_timeout")


@pytest.mark.parametrize("tunnels", [(), ("--no-tunnels",)])
def test_an_application_that_never_reads_is_reset_when_nothing_has_moved_for_too_long(
    inbound_sidecar, outbound_sidecar, application, dial, tunnels
):
    inbound = inbound_sidecar(application.getsockname()[1], "--stall-timeout", "0.5")
    outbound = outbound_sidecar(inbound.port("inbound"), *tunnels)
    client = dial(outbound.port("outbound"))
    with application.accept()[0], pytest.raises((ConnectionResetError, BrokenPipeError)):
        while True:
            client.sendall(bytes(1 << 20))
    (line,) = inbound.wait_for(inbound.lines)
    assert (line["flag"], line["reason"]) == ("TIMEOUT", "stalled")


def test_new_certificates_are_used_after_sighup_and_broken_ones_are_not(tmp_path, pki, qbitel, application, dial):
    certs = tmp_path / "certs"
    shutil.copytree(pki.base / "api", certs)
    sidecar = qbitel(
        "proxy", "--no-capture", "--certs", certs, "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
        "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{application.getsockname()[1]}",
    )  # fmt: skip
    (certs / "tls.key").write_bytes((pki.base / "web" / "tls.key").read_bytes())
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_for(lambda: "the last good ones stay in use" in sidecar.messages)
    (certs / "tls.crt").write_bytes((pki.base / "web" / "tls.crt").read_bytes())
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_for(lambda: f"certificates reloaded: {pki.identity('web')}" in sidecar.messages)
    assert sidecar.metric("qbitel_cert_reloads_total", result="failed") >= 1
    assert sidecar.metric("qbitel_cert_reloads_total", result="ok") == 1
    assert "PRIVATE KEY" not in sidecar.messages


def test_changed_certificates_are_noticed_without_a_signal(tmp_path, pki, qbitel, monkeypatch):
    certs = tmp_path / "certs"
    shutil.copytree(pki.base / "api", certs)
    # The idle limit also sets the pace of the sweeps.
    sidecar = qbitel(
        "proxy", "--no-capture", "--certs", certs, "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
        "--explicit-inbound", "127.0.0.1:0=127.0.0.1:9", "--idle-timeout", "1",
    )  # fmt: skip
    shutil.copytree(pki.base / "web", certs, dirs_exist_ok=True)
    sidecar.wait_for(lambda: f"certificates reloaded: {pki.identity('web')}" in sidecar.messages)


def test_an_idle_sidecar_is_small(inbound_sidecar):
    sidecar = inbound_sidecar(9, "--admin", "127.0.0.1:0")
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{sidecar.process.pid}/status").read_text())
    assert resident is not None
    assert int(resident[1]) < 50 * 1024  # kB; 46 MiB when this was written


def test_limits_that_make_no_sense_name_their_flag():
    with pytest.raises(UserError, match="--handshake-timeout"):
        Limits(handshake_timeout=0)
    with pytest.raises(UserError, match="--drain-seconds"):
        Limits(drain_seconds=-1)
    with pytest.raises(UserError, match="--idle-timeout"):
        Limits(idle_timeout=float("nan"))


def test_a_task_that_must_not_end_takes_the_sidecar_with_it(pki, run, monkeypatch, caplog):
    bound = binding.build(configuration(pki.files("web"), 0))

    async def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(server.Process, "_chores", broken)
    assert run(server.run_alone(bound)) == 1
    bound.close()
    assert "a bug ended what this sidecar cannot go on without" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_hundreds_of_silent_strangers_do_not_keep_a_peer_of_the_mesh_waiting(
    inbound_sidecar, outbound_sidecar, application, dial
):
    inbound = inbound_sidecar(application.getsockname()[1])
    outbound = outbound_sidecar(inbound.port("inbound"))
    strangers = [dial(inbound.port("inbound")) for _ in range(560)]
    for stranger in strangers[280:]:
        stranger.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
    client = dial(outbound.port("outbound"))
    began = time.monotonic()
    client.sendall(b"let me in")
    with application.accept()[0] as accepted:
        assert accepted.recv(100) == b"let me in"
        assert time.monotonic() - began < 3
        inbound.wait_for(lambda: inbound.metric("qbitel_connections_refused_total", reason="handshake_evicted") >= 40)
        accepted.sendall(b"still here")
        assert client.recv(100) == b"still here"
    strangers[0].settimeout(5)
    with pytest.raises(ConnectionResetError):
        strangers[0].recv(10)
    line = next(line for line in inbound.lines() if line["reason"] == "handshake_evicted")
    assert line["flag"] == "RATE_LIMITED"
