"""tlslite-ng against our tunnels and our engine, in both roles: an implementation that shares no code with OpenSSL."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Final

import pytest

import pqtls
from mesh import names
from pqtls.provider import default_provider
from tests.foreign.conftest import Mesh, identity
from tests.foreign.engine import OurEnd, common
from tests.foreign.processes import EchoApplication, Peer, Tunnel, exchange

Program = tuple[Path, ...]

GROUPS: Final = {"hybrid-l5": "secp384r1mlkem1024", "compat": "x25519mlkem768"}
# AES-GCM in pure Python makes some hundred kilobytes a second.
SIZE: Final = 150_000


def tlslite_server(tlslite: Program, mesh: Mesh, profile: str) -> Peer:
    return Peer(*tlslite, role="server", groups=GROUPS[profile], alpn=names.ALPN_STREAM.decode(), **files(mesh.server))


def tlslite_client(tlslite: Program, port: int, folder: Path, profile: str, **changes: Any) -> Peer:
    options = {"groups": GROUPS[profile], "bytes": SIZE, **files(folder)} | changes
    return Peer(*tlslite, role="client", port=port, **options)


def files(folder: Path) -> dict[str, Path]:
    return {"cert": folder / "tls.crt", "key": folder / "tls.key"}


@pytest.mark.parametrize("profile", GROUPS)
def test_our_tunnel_client_moves_bytes_both_ways_through_a_tlslite_server(
    tlslite: Program, mesh: Mesh, profile: str
) -> None:
    with tlslite_server(tlslite, mesh, profile) as peer:
        port = peer.event("listening")["port"]
        with Tunnel("client", port, mesh.client, profile, "--expect", identity("server")) as tunnel:
            checksum = exchange(tunnel.port, SIZE)
            ours = tunnel.handshake()
        theirs = peer.event("connected")

        assert (theirs["chain"], theirs["peer_key"]) == (1, "mldsa87")
        assert ours["group"].lower() == GROUPS[profile]
        assert (ours["signature"], ours["peer_identity"]) == ("mldsa87", identity("server"))
        assert peer.event("done")["sha256"] == checksum


@pytest.mark.parametrize("profile", GROUPS)
def test_a_tlslite_client_moves_bytes_both_ways_through_our_tunnel_server(
    tlslite: Program, mesh: Mesh, profile: str
) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, profile, "--allow", identity("client")) as tunnel,
        tlslite_client(tlslite, tunnel.port, mesh.client, profile) as peer,
    ):
        assert peer.event("connected")["peer_key"] == "mldsa87"
        assert peer.event("done")["bytes"] == SIZE
        ours = tunnel.handshake()

    assert ours["group"].lower() == GROUPS[profile]
    assert (ours["signature"], ours["peer_identity"]) == ("mldsa87", identity("client"))


@pytest.mark.parametrize("cipher", ["aes128gcm", "chacha20-poly1305"])
def test_a_tlslite_client_picks_the_other_cipher_suites_of_compat(tlslite: Program, mesh: Mesh, cipher: str) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, "compat") as tunnel,
        tlslite_client(tlslite, tunnel.port, mesh.client, "compat", cipher=cipher) as peer,
    ):
        assert peer.event("connected")["cipher"] == cipher
        assert peer.event("done")["bytes"] == SIZE


# Refusals by our tunnel: alerts by their numbers in RFC 8446 §6


def test_a_tlslite_client_without_a_certificate_hears_certificate_required(tlslite: Program, mesh: Mesh) -> None:
    assert refusal(tlslite, mesh, mesh.client, "no_certificate", cert=None) == pqtls.Alert.CERTIFICATE_REQUIRED


def test_a_tlslite_client_under_another_root_hears_unknown_ca(tlslite: Program, mesh: Mesh) -> None:
    assert refusal(tlslite, mesh, mesh.stranger, "unknown_root") == pqtls.Alert.UNKNOWN_CA


def test_a_tlslite_client_with_another_group_hears_handshake_failure(tlslite: Program, mesh: Mesh) -> None:
    refused = refusal(tlslite, mesh, mesh.client, "nothing_in_common", groups="x25519mlkem768")
    assert refused == pqtls.Alert.HANDSHAKE_FAILURE


def test_a_tlslite_client_of_tls_1_2_hears_protocol_version(tlslite: Program, mesh: Mesh) -> None:
    refused = refusal(
        tlslite, mesh, mesh.client, "nothing_in_common", version=(3, 3), groups="secp384r1", cipher="aes256gcm"
    )
    assert refused == pqtls.Alert.PROTOCOL_VERSION


def refusal(tlslite: Program, mesh: Mesh, folder: Path, warning: str, **changes: Any) -> int:
    """The number of the alert that a client hears from our tunnel, which warns of it and lets nothing through."""
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, "hybrid-l5") as tunnel,
        tlslite_client(tlslite, tunnel.port, folder, "hybrid-l5", silent=True, **changes) as peer,
    ):
        tunnel.warning(warning)
        facts = peer.any_event()
        if facts["event"] == "connected":  # a TLS 1.3 client is, before the server has looked at its certificate
            facts = peer.any_event()
        assert application.connections == 0
    assert facts["event"] == "error", facts
    kind, number = facts["code"].split()
    assert kind == "alert", facts
    return int(number)


# With the engine itself


def test_our_client_resumes_with_a_tlslite_server(tlslite: Program, mesh: Mesh) -> None:
    base = common(mesh.client, ("hybrid-l5",))
    with tlslite_server(tlslite, mesh, "hybrid-l5") as peer:
        port = peer.event("listening")["port"]
        with OurEnd.connect(port, pqtls.ClientConfig(**base)) as first:
            assert not first.handshake().resumed
            assert first.echo(b"first") == b"first"
            session = first.wait_for(pqtls.SessionReceived).session
            first.close()
            peer.event("connected")
            peer.event("done")
        with OurEnd.connect(port, pqtls.ClientConfig(**base, sessions=(session,))) as second:
            completed = second.handshake()
            assert completed.resumed
            assert completed.group == "SecP384r1MLKEM1024"
            payload = os.urandom(SIZE)
            assert second.echo(payload) == payload
            peer.event("connected")
            assert peer.event("done")["bytes"] == SIZE


def test_a_tlslite_client_resumes_with_our_server_and_both_know_it(
    tlslite: Program, mesh: Mesh, listener: socket.socket
) -> None:
    config = pqtls.ServerConfig(**common(mesh.server, ("hybrid-l5",)), tickets=pqtls.TicketKeeper(default_provider()))
    with tlslite_client(tlslite, listener.getsockname()[1], mesh.client, "hybrid-l5", connections=2) as peer:
        for resumed in (False, True):
            with OurEnd.accept(listener, config) as ours:
                completed = ours.handshake()
                assert completed.resumed is resumed
                assert (completed.group, completed.peer_identity) == ("SecP384r1MLKEM1024", identity("client"))
                assert ours.serve_echo() == SIZE
                ours.close()
                assert peer.event("connected")["resumed"] is resumed
                assert peer.event("done")["bytes"] == SIZE


def test_a_tlslite_server_follows_our_key_updates_and_answers_with_its_own(tlslite: Program, mesh: Mesh) -> None:
    with tlslite_server(tlslite, mesh, "hybrid-l5") as peer:
        config = pqtls.ClientConfig(**common(mesh.client, ("hybrid-l5",)))
        with OurEnd.connect(peer.event("listening")["port"], config) as ours:
            ours.handshake()
            payload = os.urandom(10_000)
            ours.send((len(payload) * 4).to_bytes(8, "big") + payload)
            assert ours.read(len(payload)) == payload
            for _ in range(3):
                ours.update_keys(request_peer=True)
                ours.send(payload)
                assert ours.read(len(payload)) == payload
                ours.wait_for(pqtls.PeerKeysUpdated)


def test_our_tunnel_server_answers_the_key_update_that_a_tlslite_client_asks_for(tlslite: Program, mesh: Mesh) -> None:
    with (
        EchoApplication() as application,
        Tunnel("server", application.port, mesh.server, "hybrid-l5") as tunnel,
        tlslite_client(tlslite, tunnel.port, mesh.client, "hybrid-l5", update_keys=True) as peer,
    ):
        peer.event("connected")
        assert peer.event("done")["bytes"] == SIZE


def test_a_tlslite_client_follows_our_hello_retry_request(
    tlslite: Program, mesh: Mesh, listener: socket.socket
) -> None:
    config = pqtls.ServerConfig(**common(mesh.server, ("hybrid-l5",)))
    groups = ["x25519mlkem768", "secp384r1mlkem1024"]
    with (
        tlslite_client(tlslite, listener.getsockname()[1], mesh.client, "hybrid-l5", groups=groups) as peer,
        OurEnd.accept(listener, config) as ours,
    ):
        assert ours.handshake().group == "SecP384r1MLKEM1024"
        assert ours.serve_echo() == SIZE
        ours.close()
        peer.event("connected")
        peer.event("done")


def test_our_client_follows_the_hello_retry_request_of_a_tlslite_server(tlslite: Program, mesh: Mesh) -> None:
    with tlslite_server(tlslite, mesh, "compat") as peer:
        config = pqtls.ClientConfig(**common(mesh.client, ("hybrid-l5", "compat")))
        with OurEnd.connect(peer.event("listening")["port"], config) as ours:
            completed = ours.handshake()
            assert (completed.profile, completed.group) == ("compat", "X25519MLKEM768")
            assert ours.echo(b"after a retry") == b"after a retry"
