"""Real sidecars that enrol with a real (little) authority, from the first certificate to renewals under traffic."""

from __future__ import annotations

import contextlib
import datetime
import re
import signal
import socket
import threading
import time

import pytest
from cryptography import x509

from tests.proxy.little_authority import Generation, LittleAuthority

PATIENCE = 90.0  # seconds that many renewals may take on a slow machine
WEB, API = (f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("web", "api"))


@pytest.fixture
def authority():
    return LittleAuthority()


@pytest.fixture
def folder(tmp_path, authority):
    for name in ("web", "api"):
        (tmp_path / f"{name}-token").write_text(f"{name}-token\n")
    return authority.write_roots(tmp_path / "roots").parent


@pytest.fixture
def sidecar(qbitel, folder):
    """Start an explicit inbound (api) or outbound (web) sidecar that enrols at `port`."""

    def start(direction: str, port: int, target: int, *more: object, ready: bool = True):
        name = {"inbound": "api", "outbound": "web"}[direction]
        return qbitel(
            "proxy", "--no-capture", "--authority", f"127.0.0.1:{port}", "--authority-roots", folder / "roots",
            f"--explicit-{direction}", f"127.0.0.1:0=127.0.0.1:{target}", "--instance", f"{name}-pod",
            "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", "--idle-timeout", "4",
            *(more or ("--token", folder / f"{name}-token")), ready=ready,
        )  # fmt: skip

    return start


def echoing(listener: socket.socket):
    """Answer each connection of `listener` with what it says, in threads, until it is closed."""

    def echo(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def exchange(sock: socket.socket, word: bytes) -> None:
    sock.sendall(word)
    assert sock.recv(100) == word


def test_two_sidecars_enrol_talk_and_acknowledge(authority, sidecar, application, dial, folder):
    echoing(application)
    with authority.running():
        inbound = sidecar("inbound", authority.port, application.getsockname()[1])
        outbound = sidecar("outbound", authority.port, inbound.port("inbound"))
        with dial(outbound.port("outbound")) as client:
            exchange(client, b"hello")
        line = outbound.wait_for(lambda: outbound.lines("handshake"))[0]
        assert (line["local_identity"], line["peer_identity"]) == (WEB, API)
        outbound.wait_for(lambda: len(authority.acknowledged) == 2)
        assert sorted(authority.acknowledged) == [
            (API, "api-pod/0", authority.anchors),
            (WEB, "web-pod/0", authority.anchors),
        ]
        assert outbound.metric("qbitel_cert_rotations_total", result="ok") == 1
        assert outbound.metric("qbitel_authority_reachable") == 1
        assert abs(outbound.metric("qbitel_cert_last_success_timestamp_seconds") - time.time()) < 60
        assert 86000 < outbound.metric("qbitel_cert_expiry_seconds") < 86400
    for one in (inbound, outbound):
        assert one.stop() == 0
        assert not re.search("PRIVATE|-token\\b", one.messages)
    assert not list(folder.rglob("*.key"))


def test_before_the_first_certificate_dialling_waits_and_health_says_not_ready(
    authority, sidecar, application, dial, folder
):
    echoing(application)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    waiting = sidecar("outbound", port, application.getsockname()[1], ready=False)
    waiting.wait_for(lambda: "no certificate came: the authority" in waiting.messages)
    assert waiting.get("health", "/healthz/ready") == (503, "no valid certificate\n")
    assert waiting.get("health", "/healthz/live") == (200, "live\n")
    assert waiting.metric("qbitel_authority_reachable") == 0
    client = dial(waiting.port("outbound"))
    client.sendall(b"early")
    with authority.running(port):
        inbound = sidecar("inbound", port, application.getsockname()[1])
        outbound = sidecar("outbound", port, inbound.port("inbound"))
        exchange(dial(outbound.port("outbound")), b"late")
        waiting.wait_ready()
        waiting.wait_for(lambda: waiting.get("health", "/healthz/ready") == (200, "ready\n"))
        # It was accepted now; its target is no peer of the mesh, which ends it. Before, nothing answered at all.
        waiting.wait_for(waiting.lines)
    assert waiting.messages.count("no certificate came") == 1


def test_no_connection_is_lost_while_certificates_are_renewed(authority, sidecar, application, dial):
    echoing(application)
    with authority.running():
        inbound = sidecar("inbound", authority.port, application.getsockname()[1])
        outbound = sidecar("outbound", authority.port, inbound.port("inbound"))
        old = dial(outbound.port("outbound"))
        exchange(old, b"first")

        def renewed() -> int:
            return min(
                sum(one["instance"] == f"{name}-pod/0" and "spiffe" in one["proof"] for one in list(authority.asked))
                for name in ("web", "api")
            )

        count = 0
        deadline = time.monotonic() + PATIENCE
        while renewed() < 8:
            assert time.monotonic() < deadline
            for one in (inbound, outbound):
                one.process.send_signal(signal.SIGHUP)
            with socket.create_connection(("127.0.0.1", outbound.port("outbound")), timeout=15) as new:
                exchange(new, b"new %d" % count)
            exchange(old, b"old %d" % count)
            count += 1
        outbound.wait_for(lambda: len([one for one in outbound.lines() if one["flag"] == "-"]) == count)
        for one in (inbound, outbound):
            assert one.metric("qbitel_connections_refused_total") == 0
            assert {line["flag"] for line in one.lines()} <= {"-"}
        csrs = [one["csr"] for one in authority.asked]
        assert len({csr_key(csr) for csr in csrs}) == len(csrs), "a key was used for two certificates"


def csr_key(pem: str) -> bytes:
    return x509.load_pem_x509_csr(pem.encode()).public_key().public_bytes_raw()  # type: ignore[union-attr]


def test_a_revoked_peer_is_refused_within_moments_and_a_revoked_sidecar_gets_a_new_certificate(
    authority, sidecar, application, dial, folder
):
    echoing(application)
    with authority.running():
        inbound = sidecar("inbound", authority.port, application.getsockname()[1])
        outbound = sidecar("outbound", authority.port, inbound.port("inbound"))
        exchange(dial(outbound.port("outbound")), b"hello")
        (folder / "web-token").write_text("no longer good\n")
        issued = authority.issued[WEB][-1]
        authority.revoked.append(issued)
        authority.publish()

        def refused() -> bool:
            with socket.create_connection(("127.0.0.1", outbound.port("outbound")), timeout=15) as new:
                try:
                    new.sendall(b"let me in")
                    return new.recv(100) == b""
                except ConnectionResetError:
                    return True

        inbound.wait_for(refused)
        inbound.wait_for(lambda: ended_as(inbound, "is revoked"))
        # The connection that was open all the while is not left to its peer either.
        inbound.wait_for(lambda: ended_as(inbound, "revoked while the connection was open"))
        outbound.wait_for(lambda: "our own certificate was revoked" in outbound.messages)
        (folder / "web-token").write_text("web-token\n")
        outbound.process.send_signal(signal.SIGHUP)
        outbound.wait_for(lambda: authority.issued[WEB][-1] is not issued)
        outbound.wait_for(lambda: not refused())


def ended_as(sidecar, words: str) -> bool:
    """Whether a connection ended for a revoked certificate, in these words."""
    return any(line["flag"] == "CERT_REVOKED" and words in line["message"] for line in sidecar.lines())


def test_a_new_root_replaces_the_old_one_without_a_refused_connection(authority, sidecar, application, dial):
    echoing(application)
    authority.validity = datetime.timedelta(seconds=30)  # a tenth of it spreads the early renewals
    with authority.running():
        inbound = sidecar("inbound", authority.port, application.getsockname()[1])
        outbound = sidecar("outbound", authority.port, inbound.port("inbound"))
        everybody = {WEB, API}

        def traffic_until(done) -> None:
            deadline = time.monotonic() + PATIENCE
            while not done():
                assert time.monotonic() < deadline, authority.acknowledged
                with socket.create_connection(("127.0.0.1", outbound.port("outbound")), timeout=15) as new:
                    exchange(new, b"through")

        old, new = authority.generations[0], Generation("second")
        authority.generations = [old, new]
        authority.publish()
        both = authority.anchors
        traffic_until(lambda: {who for who, _, what in authority.acknowledged if what == both} == everybody)
        authority.signer = authority.server_generation = new
        authority.publish()
        traffic_until(
            lambda: all(authority.issued[who][-1].issuer == new.intermediate.certificate.subject for who in everybody)
        )
        authority.generations = [new]
        authority.publish()
        last = authority.anchors
        traffic_until(lambda: {who for who, _, what in authority.acknowledged if what == last} == everybody)
        for one in (inbound, outbound):
            assert one.metric("qbitel_connections_refused_total") == 0


def test_each_worker_enrols_for_itself(authority, sidecar, application, dial, folder):
    echoing(application)
    with authority.running():
        token = ("--token", folder / "api-token", "--workers", "2")
        inbound = sidecar("inbound", authority.port, application.getsockname()[1], *token)
        assert {one["instance"] for one in authority.asked} == {"api-pod/0", "api-pod/1"}
        assert inbound.get("health", "/healthz/ready") == (200, "ready\n")
        inbound.wait_for(lambda: len(authority.acknowledged) == 2)
        assert inbound.metric("qbitel_cert_rotations_total", result="ok") == 2
    assert inbound.stop() == 0


def test_a_bootstrap_token_is_used_once_and_the_certificate_from_then_on(authority, sidecar, application, folder):
    authority.validity = datetime.timedelta(seconds=6)
    (folder / "once").write_text("once")
    (folder / "once").chmod(0o600)
    with authority.running():
        outbound = sidecar("outbound", authority.port, 9, "--bootstrap-token", folder / "once")
        outbound.wait_for(lambda: len(authority.asked) >= 2)
        assert [one["proof"] for one in authority.asked[:2]] == ["Bootstrap once", WEB]


def test_a_certificate_that_ends_while_the_authority_is_away_is_said_once_and_not_ready(authority, sidecar):
    authority.validity = datetime.timedelta(seconds=4)
    with authority.running():
        outbound = sidecar("outbound", authority.port, 9)
        port = authority.port
    outbound.wait_for(lambda: "our certificate ended at" in outbound.messages)
    outbound.wait_for(lambda: outbound.get("health", "/healthz/ready") == (503, "no valid certificate\n"))
    assert outbound.get("health", "/healthz/live")[0] == 200
    authority.validity = datetime.timedelta(days=1)
    with authority.running(port):
        outbound.wait_for(lambda: outbound.get("health", "/healthz/ready") == (200, "ready\n"), 60)
    assert outbound.messages.count("our certificate ended at") == 1
    assert outbound.messages.count("no certificate came") == 1
    assert "certificates come again" in outbound.messages


def test_sigterm_ends_a_sidecar_that_waits_for_its_first_certificate(authority, sidecar, application):
    waiting = sidecar("outbound", application.getsockname()[1], 9, ready=False)
    waiting.wait_for(lambda: "asking for the first certificate" in waiting.messages)
    assert waiting.stop() == 0


def test_roots_that_are_missing_are_one_line(qbitel, tmp_path):
    lost = qbitel(
        "proxy", "--no-capture", "--authority", "127.0.0.1:1", "--authority-roots", tmp_path / "nowhere",
        "--explicit-outbound", "127.0.0.1:0=127.0.0.1:9", ready=False,
    )  # fmt: skip
    assert lost.process.wait(15) == 2
    (line,) = lost.messages.splitlines()
    assert "nowhere/ca.crt does not exist" in line


def test_an_authority_that_goes_back_to_an_older_list_is_not_followed_and_that_is_counted(
    authority, sidecar, application
):
    authority.lists_signed = 5
    with authority.running():
        outbound = sidecar("outbound", authority.port, application.getsockname()[1])
        outbound.wait_for(lambda: authority.acknowledged)
        authority.lists_signed = 3
        authority.publish()
        outbound.wait_for(lambda: outbound.metric("qbitel_crl_older_refused_total") >= 1)
        outbound.wait_for(lambda: "has the number 4, but number 6 is in use already" in outbound.messages)
        authority.lists_signed = 7
        authority.publish()
        outbound.wait_for(lambda: "revocations and roots are followed again" in outbound.messages)
