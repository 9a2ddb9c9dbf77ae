"""rustls 0.23 with aws-lc-rs (PyPI's rtls) against our tunnels, in both roles.

It has X25519MLKEM768 and no other group of ours, so the profile is `compat`; it checks chains and host names itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.foreign.conftest import Mesh, identity
from tests.foreign.processes import EchoApplication, Peer, Tunnel, exchange

Program = tuple[Path, ...]

SIZE: Final = 16 * 2**20


def files(folder: Path) -> dict[str, Path]:
    return {"cert": folder / "tls.crt", "key": folder / "tls.key", "ca": folder / "ca.crt"}


def rtls_client(rtls: Program, port: int, folder: Path, **changes: Any) -> Peer:
    return Peer(*rtls, **({"role": "client", "port": port, "bytes": SIZE, **files(folder)} | changes))


def test_our_tunnel_client_moves_16_mib_each_way_through_a_rustls_server(rtls: Program, mesh: Mesh) -> None:
    with Peer(*rtls, role="server", **files(mesh.server)) as peer:
        port = peer.event("listening")["port"]
        with Tunnel("client", port, mesh.client, "compat", "--expect", identity("server")) as tunnel:
            checksum = exchange(tunnel.port, SIZE)
            ours = tunnel.handshake()
            assert (ours["group"], ours["signature"]) == ("X25519MLKEM768", "mldsa87")
            assert peer.event("connected")["protocol"] == "TLSv1.3"
            assert peer.event("done")["sha256"] == checksum


def test_a_rustls_client_moves_16_mib_each_way_through_our_tunnel_server(rtls: Program, mesh: Mesh) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, "compat", "--allow", identity("client")) as tunnel,
        rtls_client(rtls, tunnel.port, mesh.client) as peer,
    ):
        assert peer.event("connected")["protocol"] == "TLSv1.3"
        assert peer.event("done")["bytes"] == SIZE
        ours = tunnel.handshake()

    assert (ours["group"], ours["signature"]) == ("X25519MLKEM768", "mldsa87")
    assert ours["peer_identity"] == identity("client")


def test_a_rustls_client_without_a_certificate_hears_certificate_required(rtls: Program, mesh: Mesh) -> None:
    assert refusal(rtls, mesh, "compat", "no_certificate", cert=None) == "CertificateRequired"


def test_a_rustls_client_under_another_root_hears_unknown_ca(rtls: Program, mesh: Mesh) -> None:
    stranger = {**files(mesh.stranger), "ca": mesh.client / "ca.crt"}
    assert refusal(rtls, mesh, "compat", "unknown_root", **stranger) == "UnknownCA"


def test_a_rustls_client_is_told_that_it_has_no_group_of_hybrid_l5(rtls: Program, mesh: Mesh) -> None:
    assert refusal(rtls, mesh, "hybrid-l5", "nothing_in_common") == "HandshakeFailure"


def refusal(rtls: Program, mesh: Mesh, profile: str, warning: str, **changes: Any) -> str:
    """rustls' name of the alert that a client hears from our tunnel, which warns of it and lets nothing through."""
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, profile) as tunnel,
        rtls_client(rtls, tunnel.port, mesh.client, silent=True, **changes) as peer,
    ):
        tunnel.warning(warning)
        facts = peer.any_event()
        if facts["event"] == "connected":  # a TLS 1.3 client is, before the server has looked at its certificate
            facts = peer.any_event()
        assert application.connections == 0
    assert facts["event"] == "error", facts
    code: str = facts["code"]
    return code.partition("received fatal alert: ")[2].strip("',()")
