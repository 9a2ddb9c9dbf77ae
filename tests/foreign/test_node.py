"""Node.js (OpenSSL 3.5 behind its own tls module) against our tunnels and our engine, in both roles."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Final

import pytest

import pqtls
from pqtls.provider import default_provider
from tests.foreign.conftest import Mesh, identity
from tests.foreign.engine import OurEnd, common
from tests.foreign.processes import EchoApplication, Peer, Tunnel, exchange

Program = tuple[Path, ...]

# OpenSSL's names for the group of each profile that a stranger can speak.
GROUPS: Final = {"hybrid-l5": "SecP384r1MLKEM1024", "cnsa2": "MLKEM1024", "compat": "X25519MLKEM768"}
LARGE: Final = 64 * 2**20
# Many records, and no time.
SMALL: Final = 300_000


def node_options(folder: Path, profile: str, **changes: Any) -> dict[str, Any]:
    options = {
        "cert": folder / "tls.crt",
        "key": folder / "tls.key",
        "ca": folder / "ca.crt",
        "groups": GROUPS[profile],
        "signatures": "mldsa87",
        "ciphers": "TLS_AES_256_GCM_SHA384",
        "version": "TLSv1.3",
    }
    return {name: value for name, value in (options | changes).items() if value is not None}


def node_server(node: Program, mesh: Mesh, profile: str, **changes: Any) -> Peer:
    return Peer(*node, role="server", **node_options(mesh.server, profile, **changes))


def node_client(node: Program, port: int, mesh: Mesh, profile: str, size: int = SMALL, **changes: Any) -> Peer:
    folder = changes.pop("folder", mesh.client)
    return Peer(*node, role="client", port=port, bytes=size, **node_options(folder, profile, **changes))


# Through `qbitel tunnel`


@pytest.mark.parametrize("profile", GROUPS)
def test_our_tunnel_client_moves_64_mib_each_way_through_a_node_server(node: Program, mesh: Mesh, profile: str) -> None:
    with node_server(node, mesh, profile) as peer:
        port = peer.event("listening")["port"]
        with Tunnel("client", port, mesh.client, profile, "--expect", identity("server")) as tunnel:
            checksum = exchange(tunnel.port, LARGE)
            ours = tunnel.handshake()
        theirs = peer.event("connected")

        assert theirs["authorized"] is True
        assert f"URI:{identity('client')}" in theirs["identity"]
        assert (ours["group"], ours["signature"]) == (GROUPS[profile], "mldsa87")
        assert ours["peer_identity"] == identity("server")
        assert peer.event("done")["sha256"] == checksum


@pytest.mark.parametrize("profile", GROUPS)
def test_a_node_client_moves_64_mib_each_way_through_our_tunnel_server(node: Program, mesh: Mesh, profile: str) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, profile, "--allow", identity("client")) as tunnel,
        node_client(node, tunnel.port, mesh, profile, LARGE) as peer,
    ):
        theirs = peer.event("connected")
        done = peer.event("done")
        ours = tunnel.handshake()

    assert theirs["authorized"] is True
    assert f"URI:{identity('server')}" in theirs["identity"]
    assert theirs["group"] == ours["group"] == GROUPS[profile]
    assert theirs["cipher"] == ours["cipher_suite"] == "TLS_AES_256_GCM_SHA384"
    assert (ours["peer_identity"], ours["signature"]) == (identity("client"), "mldsa87")
    assert done["bytes"] == LARGE


@pytest.mark.parametrize("cipher", ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
def test_a_node_client_picks_the_other_cipher_suites_of_compat(node: Program, mesh: Mesh, cipher: str) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, "compat") as tunnel,
        node_client(node, tunnel.port, mesh, "compat", ciphers=cipher) as peer,
    ):
        assert peer.event("connected")["cipher"] == cipher
        assert peer.event("done")["bytes"] == SMALL


# Refusals by our tunnel, and what Node hears


@pytest.mark.parametrize(
    ("changes", "code", "warning"),
    [
        ({"cert": None}, "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", "no_certificate"),
        ({"groups": "X25519"}, "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE", "nothing_in_common"),
        ({"signatures": "ecdsa_secp256r1_sha256"}, "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE", "nothing_in_common"),
        ({"ciphers": "TLS_AES_128_GCM_SHA256"}, "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE", "nothing_in_common"),
        (
            {"version": "TLSv1.2", "ciphers": None, "groups": "X25519", "signatures": None},
            "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION",
            "nothing_in_common",
        ),
    ],
    ids=["no certificate", "another group", "another signature", "another suite", "TLS 1.2"],
)
def test_a_node_client_that_offers_less_hears_the_alert_that_says_why(
    node: Program, mesh: Mesh, changes: dict[str, Any], code: str, warning: str
) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, "hybrid-l5") as tunnel,
        node_client(node, tunnel.port, mesh, "hybrid-l5", silent=True, **changes) as peer,
    ):
        tunnel.warning(warning)
        assert error_of(peer) == code
        assert application.connections == 0


def test_a_node_client_under_another_root_is_refused_as_of_unknown_ca(node: Program, mesh: Mesh) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, "hybrid-l5") as tunnel,
        node_client(
            node, tunnel.port, mesh, "hybrid-l5", silent=True, folder=mesh.stranger, ca=mesh.client / "ca.crt"
        ) as peer,
    ):
        tunnel.warning("unknown_root")
        assert error_of(peer) == "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA"
        assert application.connections == 0


def test_a_node_client_whose_identity_is_not_allowed_is_denied_access(node: Program, mesh: Mesh) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, "hybrid-l5", "--allow", identity("another")) as tunnel,
        node_client(node, tunnel.port, mesh, "hybrid-l5", silent=True) as peer,
    ):
        tunnel.warning("unexpected_identity")
        assert error_of(peer) == "ERR_SSL_TLSV1_ALERT_ACCESS_DENIED"
        assert application.connections == 0


def test_a_node_server_under_another_root_is_refused_as_of_unknown_ca(node: Program, mesh: Mesh) -> None:
    stranger = {"cert": mesh.stranger / "tls.crt", "key": mesh.stranger / "tls.key"}
    with node_server(node, mesh, "hybrid-l5", **stranger) as peer:
        port = peer.event("listening")["port"]
        with Tunnel("client", port, mesh.client, "hybrid-l5") as tunnel:
            with (
                socket.create_connection(("127.0.0.1", tunnel.port), 10) as application,
                pytest.raises(ConnectionResetError),
            ):
                application.recv(1)
            tunnel.warning("unknown_root")
        assert peer.event("error")["code"] == "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA"


def test_our_client_sees_no_clean_end_when_a_node_server_does_not_take_its_certificate(
    node: Program, mesh: Mesh
) -> None:
    """Node looks at a client's chain after the handshake, in its own code, and goes without an alert."""
    with node_server(node, mesh, "hybrid-l5", ca=mesh.stranger / "ca.crt") as peer:
        config = pqtls.ClientConfig(**common(mesh.client, ("hybrid-l5",)))
        with OurEnd.connect(peer.event("listening")["port"], config) as ours:
            ours.handshake()
            with pytest.raises(pqtls.TruncatedStream):
                ours.read(1)
        peer.event("error")  # and no "connected" before it


def error_of(peer: Peer) -> str:
    """A TLS 1.3 client may think that it is connected before the server has looked at its certificate."""
    facts: dict[str, Any] = {"event": "connected"}
    while facts["event"] == "connected":
        facts = peer.any_event()
    assert facts["event"] == "error", facts
    code: str = facts["code"]
    return code


# With the engine itself


def test_our_client_resumes_with_a_node_server_and_both_know_it(node: Program, mesh: Mesh) -> None:
    base = common(mesh.client, ("hybrid-l5",))
    with node_server(node, mesh, "hybrid-l5") as peer:
        port = peer.event("listening")["port"]
        with OurEnd.connect(port, pqtls.ClientConfig(**base)) as first:
            assert not first.handshake().resumed
            session = first.wait_for(pqtls.SessionReceived).session
            first.echo(b"first")
            assert peer.event("connected")["resumed"] is False
            peer.event("done")
        with OurEnd.connect(port, pqtls.ClientConfig(**base, sessions=(session,))) as second:
            completed = second.handshake()
            assert completed.resumed
            assert (completed.group, completed.peer_identity) == ("SecP384r1MLKEM1024", identity("server"))
            payload = os.urandom(SMALL)
            assert second.echo(payload) == payload
            theirs = peer.event("connected")
            assert theirs["resumed"] is True
            assert f"URI:{identity('client')}" in theirs["identity"]
            assert theirs["exporter"] == second.exporter()


def test_a_node_client_resumes_with_our_server_and_both_know_it(
    node: Program, mesh: Mesh, listener: socket.socket
) -> None:
    config = pqtls.ServerConfig(**common(mesh.server, ("hybrid-l5",)), tickets=pqtls.TicketKeeper(default_provider()))
    with node_client(node, listener.getsockname()[1], mesh, "hybrid-l5", connections=2) as peer:
        for resumed in (False, True):
            with OurEnd.accept(listener, config) as ours:
                completed = ours.handshake()
                assert completed.resumed is resumed
                assert (completed.group, completed.peer_identity) == ("SecP384r1MLKEM1024", identity("client"))
                assert ours.serve_echo() == SMALL
                ours.close()
                theirs = peer.event("connected")
                assert theirs["resumed"] is resumed
                assert theirs["exporter"] == ours.exporter()
                assert peer.event("done")["bytes"] == SMALL


@pytest.mark.parametrize("rounds", [1, 20])
def test_a_node_server_follows_our_key_updates_and_answers_with_its_own(node: Program, mesh: Mesh, rounds: int) -> None:
    with node_server(node, mesh, "hybrid-l5") as peer:
        config = pqtls.ClientConfig(**common(mesh.client, ("hybrid-l5",)))
        with OurEnd.connect(peer.event("listening")["port"], config) as ours:
            ours.handshake()
            payload = os.urandom(50_000)
            ours.send((len(payload) * (rounds + 1)).to_bytes(8, "big") + payload)
            assert ours.read(len(payload)) == payload
            for _ in range(rounds):
                ours.update_keys(request_peer=True)
                ours.send(payload)
                assert ours.read(len(payload)) == payload
                ours.wait_for(pqtls.PeerKeysUpdated)


def test_a_node_client_follows_our_key_update_and_answers_with_its_own(
    node: Program, mesh: Mesh, listener: socket.socket
) -> None:
    config = pqtls.ServerConfig(**common(mesh.server, ("hybrid-l5",)))
    size = LARGE // 4
    with (
        node_client(node, listener.getsockname()[1], mesh, "hybrid-l5", size) as peer,
        OurEnd.accept(listener, config) as ours,
    ):
        ours.handshake()
        assert int.from_bytes(ours.read(8), "big") == size
        # OpenSSL's own KeyUpdate goes out in front of the data that it sends next, so there must be some left.
        ours.update_keys(request_peer=True)
        for _ in range(size // 65536):
            ours.send(ours.read(65536))
        ours.wait_for(pqtls.PeerKeysUpdated)
        ours.close()
        peer.event("connected")
        assert peer.event("done")["bytes"] == size


def test_our_client_follows_the_hello_retry_request_of_a_node_server(node: Program, mesh: Mesh) -> None:
    """Our first share is of hybrid-l5, which this server does not take."""
    with node_server(node, mesh, "cnsa2") as peer:
        config = pqtls.ClientConfig(**common(mesh.client, ("hybrid-l5", "cnsa2")))
        with OurEnd.connect(peer.event("listening")["port"], config) as ours:
            completed = ours.handshake()
            assert (completed.profile, completed.group) == ("cnsa2", "MLKEM1024")
            assert ours.echo(b"after a retry") == b"after a retry"
            assert peer.event("connected")["exporter"] == ours.exporter()


def test_a_node_client_follows_our_hello_retry_request(node: Program, mesh: Mesh, listener: socket.socket) -> None:
    """Node sends a share of X25519 alone; our server wants its other group."""
    config = pqtls.ServerConfig(**common(mesh.server, ("hybrid-l5",)))
    with (
        node_client(node, listener.getsockname()[1], mesh, "hybrid-l5", groups="X25519:SecP384r1MLKEM1024") as peer,
        OurEnd.accept(listener, config) as ours,
    ):
        assert ours.handshake().group == "SecP384r1MLKEM1024"
        assert ours.serve_echo() == SMALL
        ours.close()
        theirs = peer.event("connected")
        assert (theirs["group"], theirs["exporter"]) == ("SecP384r1MLKEM1024", ours.exporter())
        peer.event("done")
