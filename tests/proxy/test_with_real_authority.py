"""The product end to end: a real `qbitel certmgr serve`, two real sidecars that enrol there, and traffic."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time

import pytest

from cli.main import main

PATIENCE = 90.0  # seconds that many renewals may take on a slow machine
WEB = "spiffe://cluster.local/ns/shop/sa/web"


@pytest.fixture
def folder(tmp_path):
    """An authority, and a one-time token for each of two machines."""
    assert main(["ca", "init", str(tmp_path / "ca")]) == 0
    for name in ("web", "api"):
        words = ["--spiffe", f"spiffe://cluster.local/ns/shop/sa/{name}", "--out", str(tmp_path / f"{name}-token")]
        assert main(["ca", "token", *words, str(tmp_path / "ca")]) == 0
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "ca.crt").write_bytes((tmp_path / "ca" / "ca.crt").read_bytes())
    return tmp_path


# A leader that looks often, and waits less long for handshakes that are under way: here they take milliseconds.
IN_A_HURRY = """
import functools, certmgr.service
certmgr.service.Upkeep = functools.partial(certmgr.service.Upkeep, settle=2.0, pause=0.2)
"""


@pytest.fixture
def mesh(folder, qbitel, application):
    """The authority, and the two sidecars: from "web" to "api", which leads to what echoes."""
    threading.Thread(target=echo_all, args=(application,), daemon=True).start()
    authority = qbitel(
        "certmgr", "serve", folder / "ca", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
        "--health", "127.0.0.1:0", first=IN_A_HURRY,
    )  # fmt: skip

    def sidecar(name: str, direction: str, target: int):
        return qbitel(
            "proxy", "--no-capture", "--authority", f"127.0.0.1:{authority.port('API')}",
            "--authority-roots", folder / "roots", "--bootstrap-token", folder / f"{name}-token", "--instance", name,
            f"--explicit-{direction}", f"127.0.0.1:0=127.0.0.1:{target}", "--idle-timeout", "20",
            "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
        )  # fmt: skip

    api = sidecar("api", "inbound", application.getsockname()[1])
    return authority, sidecar("web", "outbound", api.port("inbound")), api


def echo_all(listener: socket.socket) -> None:
    def echo(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()


def through(sidecar) -> bool:
    """Whether a new connection gets through both sidecars and back."""
    with socket.create_connection(("127.0.0.1", sidecar.port("outbound")), timeout=15) as new:
        try:
            new.sendall(b"through")
            return new.recv(100) == b"through"
        except ConnectionResetError:
            return False


def traffic_until(done, outbound) -> None:
    """Connections without a pause, each of which must get through."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline
        assert through(outbound)


def test_sidecars_enrol_renew_and_lose_no_connection(mesh):
    authority, web, api = mesh

    def renewed() -> bool:
        for one in (web, api):
            one.process.send_signal(signal.SIGHUP)
        return all(one.metric("qbitel_cert_rotations_total", result="ok") >= 5 for one in (web, api))

    traffic_until(renewed, web)
    for one in (web, api):
        assert one.metric("qbitel_connections_refused_total") == 0
        assert one.stop() == 0
    assert authority.stop() == 0


def test_a_root_is_replaced_under_load_and_nobody_is_refused_for_a_moment(mesh, folder, capsys):
    _, web, api = mesh

    def rotate(step: str) -> dict:
        capsys.readouterr()
        assert main(["ca", "rotate", step, "--json", str(folder / "ca")]) == 0
        return json.loads(capsys.readouterr().out)

    def is_done() -> bool:
        status = rotate("--status")
        seen.append(status["phase"])
        if seen[-2:] == ["publishing", "signing"]:
            # They would renew by themselves, within five minutes.
            for one in (web, api):
                one.process.send_signal(signal.SIGHUP)
        return status["phase"] == "stable"

    old, seen = rotate("--status")["roots"], []
    rotate("--start")
    traffic_until(is_done, web)
    assert list(dict.fromkeys(seen)) == ["publishing", "signing", "stable"]
    assert rotate("--status")["roots"] not in ([], old)
    for one in (web, api):
        assert one.metric("qbitel_cert_rotations_total", result="ok") == 2
        assert one.metric("qbitel_connections_refused_total") == 0
    assert through(web)


def test_a_rotation_is_taken_back_under_load(mesh, folder, capsys):
    _, web, api = mesh

    def rotate(step: str) -> dict:
        capsys.readouterr()
        assert main(["ca", "rotate", step, "--json", str(folder / "ca")]) == 0
        return json.loads(capsys.readouterr().out)

    old = rotate("--status")["roots"]
    rotate("--start")
    traffic_until(lambda: rotate("--status")["phase"] == "signing", web)
    rotate("--abort")
    traffic_until(lambda: rotate("--status")["phase"] == "stable", web)
    assert rotate("--status")["roots"] == old
    for one in (web, api):
        assert one.metric("qbitel_connections_refused_total") == 0


def test_a_revocation_by_hand_shuts_the_peer_out_and_its_open_connection_too(mesh, folder, dial):
    _, web, api = mesh
    held = dial(web.port("outbound"))
    held.sendall(b"hello")
    assert held.recv(100) == b"hello"
    assert main(["ca", "revoke", "--spiffe", WEB, str(folder / "ca")]) == 0
    api.wait_for(lambda: not through(web))
    with pytest.raises(ConnectionResetError):
        held.recv(100)
    api.wait_for(lambda: any(line["flag"] == "CERT_REVOKED" for line in api.lines()))
    web.wait_for(lambda: "our own certificate was revoked" in web.messages)
    web.wait_for(lambda: "no certificate came" in web.messages)
