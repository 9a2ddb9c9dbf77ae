"""Resumption between two running sidecars: warm connections cost no signature, and let nobody in who is not welcome."""

from __future__ import annotations

import datetime
import shutil
import signal
import time

import pytest

from certmgr.authority import WorkloadRequest, issue_workload
from certmgr.files import write_workload
from mesh.spiffe import SpiffeId


@pytest.fixture
def folders(tmp_path, pki):
    """The certificate folders of the two sidecars, which a test may change."""
    for name in ("web", "api"):
        shutil.copytree(pki.base / name, tmp_path / "certs" / name)
    return tmp_path / "certs"


@pytest.fixture
def sidecars(qbitel, folders, application):
    """(outbound, inbound) sidecars with the application behind them."""
    common = ("--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0")
    port = application.getsockname()[1]
    inbound = qbitel(
        "proxy", *common, "--certs", folders / "api", "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{port}"
    )
    port = inbound.port("inbound")
    outbound = qbitel(
        "proxy", *common, "--no-tunnels", "--certs", folders / "web",
        "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{port}",
    )  # fmt: skip
    return outbound, inbound


@pytest.fixture
def ask(dial, application):
    """Send a question through the sidecar's outbound port and get the application's answer."""

    def go(outbound) -> None:
        near = dial(outbound.port("outbound"))
        near.sendall(b"question")
        with application.accept()[0] as far:
            assert far.recv(100) == b"question"
            far.sendall(b"answer")
            assert near.recv(100) == b"answer"
        near.close()

    return go


@pytest.fixture
def refused(dial):
    """Dial the sidecar's outbound port and be reset."""

    def go(outbound) -> None:
        with pytest.raises(ConnectionResetError):
            while dial(outbound.port("outbound")).recv(10):
                pass

    return go


def handshakes(sidecar, count: int) -> list[dict]:
    """The lines of its handshakes, once there are so many: an answer may be there before the line about it."""
    return sidecar.wait_for(lambda: len(lines := sidecar.lines("handshake")) >= count and lines)


def reload(sidecar) -> None:
    before = sidecar.messages.count("certificates reloaded")
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_for(lambda: sidecar.messages.count("certificates reloaded") > before)


def test_the_second_connection_resumes_and_both_sides_say_and_count_it(sidecars, ask, pki):
    for _ in range(3):
        ask(sidecars[0])
    for sidecar, direction, peer in zip(sidecars, ("outbound", "inbound"), ("api", "web"), strict=True):
        lines = handshakes(sidecar, 3)
        assert [line["resumed"] for line in lines] == [False, True, True]
        assert {line["peer_identity"] for line in lines} == {pki.identity(peer)}
        assert {line["group"] for line in lines} == {"X25519MLKEM1024"}
        assert sidecar.metric("qbitel_tls_resumptions_total", direction=direction) == 2
        assert sidecar.metric("qbitel_tls_handshakes_total", direction=direction, result="ok") == 3


def test_a_client_that_was_revoked_meanwhile_does_not_get_in(sidecars, ask, refused, folders, pki):
    outbound, inbound = sidecars
    ask(outbound)
    (folders / "api" / "crl.pem").write_bytes(pki.revocations("web"))
    reload(inbound)
    refused(outbound)
    (line,) = inbound.wait_for(lambda: [line for line in inbound.lines() if line["flag"] != "-"])
    assert (line["flag"], line["reason"]) == ("CERT_REVOKED", "revoked")


def test_a_server_that_was_revoked_meanwhile_is_not_talked_to(sidecars, ask, refused, folders, pki):
    outbound, _ = sidecars
    ask(outbound)
    (folders / "web" / "crl.pem").write_bytes(pki.revocations("api"))
    reload(outbound)
    refused(outbound)
    (line,) = outbound.wait_for(lambda: [line for line in outbound.lines() if line["flag"] != "-"])
    assert (line["flag"], line["reason"]) == ("CERT_REVOKED", "revoked")


def test_revoking_somebody_else_costs_nobody_a_full_handshake(sidecars, ask, folders, pki):
    outbound, inbound = sidecars
    ask(outbound)
    (folders / "api" / "crl.pem").write_bytes(pki.revocations("foreign_domain"))
    reload(inbound)
    ask(outbound)
    assert [line["resumed"] for line in handshakes(inbound, 2)] == [False, True]


def test_a_client_with_a_new_identity_is_met_anew(sidecars, ask, folders, pki):
    outbound, inbound = sidecars
    ask(outbound)
    shutil.copytree(pki.base / "api", folders / "web", dirs_exist_ok=True)
    reload(outbound)
    ask(outbound)
    lines = handshakes(inbound, 2)
    assert [(line["resumed"], line["peer_identity"]) for line in lines] == [
        (False, pki.identity("web")),
        (False, pki.identity("api")),
    ]


def test_a_server_with_a_new_identity_takes_no_ticket_of_its_former_self(sidecars, ask, folders, pki):
    outbound, inbound = sidecars
    ask(outbound)
    shutil.copytree(pki.base / "web", folders / "api", dirs_exist_ok=True)
    reload(inbound)
    ask(outbound)
    assert [(line["resumed"], line["peer_identity"]) for line in handshakes(outbound, 2)] == [
        (False, pki.identity("api")),
        (False, pki.identity("web")),
    ]


def test_a_certificate_that_expired_meanwhile_is_refused(qbitel, sidecars, ask, refused, folders, pki):
    _, inbound = sidecars
    now = datetime.datetime.now(datetime.UTC)
    spiffe_id = SpiffeId.parse(pki.identity("web"))
    request = WorkloadRequest(spiffe_id=spiffe_id, validity=datetime.timedelta(seconds=4))
    write_workload(folders / "web", issue_workload(request, pki.root, now), [pki.root.certificate])
    outbound = qbitel(
        "proxy", "--no-capture", "--no-tunnels", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
        "--certs", folders / "web", "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{inbound.port('inbound')}",
    )  # fmt: skip
    ask(outbound)
    ask(outbound)
    time.sleep(max(0, 5.1 - (datetime.datetime.now(datetime.UTC) - now).total_seconds()))
    refused(outbound)
    assert [line["resumed"] for line in inbound.lines("handshake")] == [False, True]
    (line,) = inbound.wait_for(lambda: [line for line in inbound.lines() if line["flag"] != "-"])
    assert (line["flag"], line["reason"]) == ("IDENTITY_ERROR", "expired")


def test_an_identity_that_is_no_longer_allowed_is_refused(qbitel, ask, refused, application, pki):
    def end(role: str, listen: int, target: int, name: str, *more: object):
        folder = pki.base / name
        return qbitel(
            "tunnel", role, "--listen", f"127.0.0.1:{listen}", "--target", f"127.0.0.1:{target}",
            "--cert", folder / "tls.crt", "--key", folder / "tls.key", "--ca", folder / "ca.crt", *more,
        )  # fmt: skip

    target = application.getsockname()[1]
    server = end("server", 0, target, "api", "--allow", pki.identity("web"))
    port = server.port("inbound")
    client = end("client", 0, port, "web")
    ask(client)
    assert server.stop() == 0
    again = end("server", port, target, "api", "--allow", pki.identity("batch"))
    refused(client)
    (line,) = again.wait_for(again.lines)
    assert (line["flag"], line["reason"]) == ("IDENTITY_ERROR", "unexpected_identity")
    assert again.lines("handshake") == []
