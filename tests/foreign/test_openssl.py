"""OpenSSL's own commands, s_client and s_server, against our tunnels, with the lists of our authority.

QBITEL_OPENSSL names the program; else it is the one on PATH, from 3.5 on.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from cli.main import main as qbitel
from tests.foreign.conftest import Mesh, identity
from tests.foreign.processes import DEADLINE, Child, EchoApplication, Tunnel
from tests.support.openssl_program import openssl_program

GROUPS: Final = {"hybrid-l5": "SecP384r1MLKEM1024", "cnsa2": "MLKEM1024", "compat": "X25519MLKEM768"}
_TEXT: Final = b"post-quantum\n"


@pytest.fixture(scope="module")
def program() -> str:
    return openssl_program()


@pytest.fixture
def mesh(whole_mesh: Mesh) -> Mesh:
    return whole_mesh


def held(folder: Path) -> tuple[str, ...]:
    """The intermediates and the revocation lists that lie in a folder of `qbitel ca issue`, for a tunnel."""
    return ("--intermediates", str(folder / "intermediates.crt"), "--crl", str(folder / "crl.pem"))


def both_roots_and_lists(folder: Path, where: Path) -> Path:
    """One file of roots and lists: -CRL takes the first list of a file only, and -CAfile all that it holds."""
    where.write_bytes((folder / "ca.crt").read_bytes() + (folder / "crl.pem").read_bytes())
    return where


def common(program: str, command: str, profile: str, folder: Path, trust: Path) -> list[str]:
    """The words that s_client and s_server share. Behind -cert stands the leaf alone: -cert_chain is the rest."""
    return [
        *(program, command, "-groups", GROUPS[profile], "-sigalgs", "mldsa87"),
        *("-cert", str(folder / "tls.crt"), "-cert_chain", str(folder / "tls.crt"), "-key", str(folder / "tls.key")),
        *("-CAfile", str(trust), "-verify_return_error", "-crl_check_all", "-x509_strict"),
    ]


@pytest.mark.parametrize("profile", GROUPS)
def test_s_client_and_our_tunnel_server_know_each_other(program: str, mesh: Mesh, tmp_path: Path, profile: str) -> None:
    trust = both_roots_and_lists(mesh.client, tmp_path / "trust.pem")
    with (
        EchoApplication() as application,
        Tunnel(
            *("server", application.port, mesh.server, profile, "--allow", identity("client")), *held(mesh.server)
        ) as tunnel,
    ):
        words = [*common(program, "s_client", profile, mesh.client, trust), "-verify", "3", "-quiet"]
        with subprocess.Popen(
            [*words, "-connect", f"127.0.0.1:{tunnel.port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(len(_TEXT).to_bytes(8, "big") + _TEXT)
            client.stdin.flush()
            assert client.stdout.read(len(_TEXT)) == _TEXT
            client.communicate(timeout=DEADLINE)
        ours = tunnel.handshake()

    assert (ours["group"], ours["signature"]) == (GROUPS[profile], "mldsa87")
    assert ours["peer_identity"] == identity("client")


@pytest.mark.parametrize("profile", GROUPS)
def test_our_tunnel_client_and_s_server_know_each_other(program: str, mesh: Mesh, tmp_path: Path, profile: str) -> None:
    trust = both_roots_and_lists(mesh.server, tmp_path / "trust.pem")
    with s_server(common(program, "s_server", profile, mesh.server, trust), "-Verify", "3") as server:
        port = int(server.line(server.out, r"ACCEPT 127\.0\.0\.1:(\d+)")[1])
        with Tunnel(
            *("client", port, mesh.client, profile, "--expect", identity("server")), *held(mesh.client)
        ) as tunnel:
            with socket.create_connection(("127.0.0.1", tunnel.port), DEADLINE) as connection:
                connection.sendall(_TEXT)
                assert connection.recv(100) == _TEXT.strip()[::-1] + b"\n"
            ours = tunnel.handshake()
        server.line(server.err, r"^Signature type: mldsa87$")
        server.line(server.err, r"^Verification: OK$")

    assert (ours["group"], ours["signature"]) == (GROUPS[profile], "mldsa87")
    assert ours["peer_identity"] == identity("server")


def s_server(words: list[str], *more: str) -> Child:
    """On a port of its own; each line that comes goes back reversed (-rev)."""
    return Child(*words, *more, "-accept", "127.0.0.1:0", "-tls1_3", "-rev")


def test_a_stranger_is_refused_by_each_side_with_unknown_ca(program: str, mesh: Mesh, tmp_path: Path) -> None:
    profile = "hybrid-l5"
    of_stranger = both_roots_and_lists(mesh.stranger, tmp_path / "stranger.pem")
    with s_server(common(program, "s_server", profile, mesh.stranger, of_stranger)) as server:
        port = int(server.line(server.out, r"ACCEPT 127\.0\.0\.1:(\d+)")[1])
        with Tunnel("client", port, mesh.client, profile, *held(mesh.client)) as tunnel:
            with socket.create_connection(("127.0.0.1", tunnel.port), DEADLINE) as connection:
                assert gone(connection)
            tunnel.warning("unknown_root")
        assert re.search(r"alert unknown ca", server.line(server.err, r"alert").string)


def gone(connection: socket.socket) -> bool:
    """Whether the other end is closed or reset, without a byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_s_client_refuses_a_revoked_server(program: str, tmp_path: Path) -> None:
    authority = tmp_path / "ca"
    run("init", authority)
    run("issue", authority, "--spiffe", identity("server"))
    run("revoke", authority, authority / "server" / "tls.crt")
    (tmp_path / "trust.pem").write_bytes((authority / "ca.crt").read_bytes() + (authority / "crl.pem").read_bytes())
    folder = authority / "server"
    with EchoApplication() as application, Tunnel("server", application.port, folder, "hybrid-l5") as tunnel:
        words = common(program, "s_client", "hybrid-l5", folder, tmp_path / "trust.pem")
        done = subprocess.run(
            [*words, "-verify", "3", "-connect", f"127.0.0.1:{tunnel.port}"],
            input=b"",
            capture_output=True,
            check=False,
            timeout=DEADLINE,
        )
    assert b"certificate revoked" in done.stdout + done.stderr
    assert done.returncode == 1


def run(*words: Any) -> None:
    assert qbitel(["ca", *(os.fspath(one) for one in words)]) == 0
