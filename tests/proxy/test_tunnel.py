"""The explicit tunnel between two of ours, and with OpenSSL as the other end in both roles."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest
from OpenSSL import SSL
from OpenSSL._util import lib

from cli.main import main as command
from mesh.errors import UserError
from pqtls import PROFILES
from proxy import tunnel
from proxy.config import Direction, Endpoint
from proxy.providers import LiboqsAbsent, load_liboqs

HERE = Endpoint("127.0.0.1", 0)


class OpenSslEnd:
    """OpenSSL over a socket, speaking the profile hybrid-l5. It offers and selects no ALPN protocol."""

    def __init__(self, sock: socket.socket, pki, certs: str | None, *, server: bool) -> None:
        self.sock = sock
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        assert lib.SSL_CTX_set1_curves_list(context._context, b"SecP384r1MLKEM1024") == 1
        assert lib.SSL_CTX_set1_sigalgs_list(context._context, b"mldsa87") == 1
        if certs:
            folder = pki.base / certs
            context.use_certificate_chain_file(str(folder / "tls.crt"))
            context.use_privatekey_file(str(folder / "tls.key"))
        context.load_verify_locations(str(pki.base / "web" / "ca.crt"))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        self.tls = SSL.Connection(context, None)
        (self.tls.set_accept_state if server else self.tls.set_connect_state)()

    def do(self, action):
        """Repeat `action` of OpenSSL with the bytes that it wants, until it is done."""
        while True:
            try:
                result = action()
            except SSL.WantReadError:
                self._flush()
                data = self.sock.recv(65536)
                if not data:
                    raise EOFError("the other end closed the connection") from None
                self.tls.bio_write(data)
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        while True:
            try:
                self.sock.sendall(self.tls.bio_read(65536))
            except SSL.WantReadError:
                return


@pytest.fixture
def end(qbitel, pki):
    """Start `qbitel tunnel client|server` towards the port `target` with the files of a workload."""

    def start(role: str, target: int, certs: str, *more: object):
        folder = pki.base / certs
        return qbitel(
            "tunnel", role, "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", "--cert", folder / "tls.crt",
            "--key", folder / "tls.key", "--ca", folder / "ca.crt", "--metrics", "127.0.0.1:0", *more,
        )  # fmt: skip

    return start


def test_two_tunnel_ends_of_two_workers_each_carry_a_connection(end, application, dial, pki):
    server = end("server", application.getsockname()[1], "api", "--allow", pki.identity("web"), "--workers", "2")
    client = end("client", server.port("inbound"), "web", "--expect", pki.identity("api"), "--workers", "2")
    near = dial(client.port("outbound"))
    far, _ = application.accept()
    with far:
        near.sendall(b"question")
        assert far.recv(100) == b"question"
        far.sendall(b"answer")
        assert near.recv(100) == b"answer"
    near.close()
    assert server.stop() == 0
    assert client.stop() == 0


def test_any_trust_domain_that_the_root_vouches_for_may_come_in_unless_told_otherwise(end, application, dial):
    server = end("server", application.getsockname()[1], "api")
    client = end("client", server.port("inbound"), "foreign_domain")
    near = dial(client.port("outbound"))
    with application.accept()[0] as far:
        far.sendall(b"welcome")
        assert near.recv(100) == b"welcome"


def test_an_identity_that_is_not_allowed_is_refused_with_access_denied(end, application, dial, pki):
    server = end("server", application.getsockname()[1], "api", "--allow", pki.identity("batch"), pki.identity("other"))
    client = end("client", server.port("inbound"), "web")
    with pytest.raises(ConnectionResetError):
        dial(client.port("outbound")).recv(10)
    (line,) = server.wait_for(server.lines)
    assert (line["flag"], line["reason"]) == ("IDENTITY_ERROR", "unexpected_identity")
    assert pki.identity("web") in line["message"]
    (line,) = client.wait_for(client.lines)
    assert "access_denied" in line["message"]


def test_the_server_s_preferred_profile_of_those_in_common_is_used(end, application, dial):
    server = end("server", application.getsockname()[1], "api", "--profile", "hybrid-l5,qbitel")
    for offered, group in (("qbitel", "X25519MLKEM1024"), ("qbitel,hybrid-l5", "SecP384r1MLKEM1024")):
        client = end("client", server.port("inbound"), "web", "--profile", offered)
        near = dial(client.port("outbound"))
        with application.accept()[0] as far:
            far.sendall(b"welcome")
            assert near.recv(100) == b"welcome"
        assert client.wait_for(lambda client=client: client.lines("handshake"))[0]["group"] == group


def test_a_tunnel_end_with_liboqs_talks_to_one_with_cryptography(end, application, dial):
    try:
        load_liboqs(os.environ)
    except LiboqsAbsent as reason:
        pytest.skip(str(reason))
    server = end("server", application.getsockname()[1], "api", "--provider", "liboqs")
    client = end("client", server.port("inbound"), "web", "--profile", "qbitel")
    near = dial(client.port("outbound"))
    with application.accept()[0] as far:
        far.sendall(b"welcome")
        assert near.recv(100) == b"welcome"


def test_a_revoked_client_is_refused_by_a_list_that_was_named(end, application, dial, pki, tmp_path):
    crl = tmp_path / "list.pem"
    crl.write_bytes(pki.revocations("web"))
    server = end("server", application.getsockname()[1], "api", "--crl", crl)
    client = end("client", server.port("inbound"), "web")
    with pytest.raises(ConnectionResetError):
        dial(client.port("outbound")).recv(10)
    (line,) = server.wait_for(server.lines)
    assert (line["flag"], line["reason"]) == ("CERT_REVOKED", "revoked")


def test_a_server_with_another_identity_than_expected_is_refused(end, application, dial, pki):
    server = end("server", application.getsockname()[1], "api")
    client = end("client", server.port("inbound"), "web", "--expect", pki.identity("bank"))
    with pytest.raises(ConnectionResetError):
        dial(client.port("outbound")).recv(10)
    (line,) = client.wait_for(client.lines)
    assert line["reason"] == "unexpected_identity"


def test_openssl_as_client_without_alpn_is_served_as_one_stream(end, application, dial, pki):
    server = end("server", application.getsockname()[1], "api", "--profile", "hybrid-l5")
    openssl = OpenSslEnd(dial(server.port("inbound")), pki, "web", server=False)
    openssl.do(openssl.tls.do_handshake)
    with application.accept()[0] as far:
        openssl.do(lambda: openssl.tls.send(b"from OpenSSL"))
        assert far.recv(100) == b"from OpenSSL"
        far.sendall(b"to OpenSSL")
        far.shutdown(socket.SHUT_WR)
        assert openssl.do(lambda: openssl.tls.recv(100)) == b"to OpenSSL"
        with pytest.raises(SSL.ZeroReturnError):  # close_notify
            openssl.do(lambda: openssl.tls.recv(100))
        openssl.tls.shutdown()
        openssl._flush()
        assert far.recv(100) == b""
    (line,) = server.wait_for(server.lines)
    assert (line["group"], line["flag"], line["peer_identity"]) == ("SecP384r1MLKEM1024", "-", pki.identity("web"))


def test_openssl_as_client_without_a_certificate_is_refused_with_certificate_required(end, application, dial, pki):
    server = end("server", application.getsockname()[1], "api", "--profile", "hybrid-l5")
    openssl = OpenSslEnd(dial(server.port("inbound")), pki, None, server=False)
    openssl.do(openssl.tls.do_handshake)
    with pytest.raises(SSL.Error, match="certificate required"):
        openssl.do(lambda: openssl.tls.recv(100))
    (line,) = server.wait_for(server.lines)
    assert line["flag"] == "IDENTITY_ERROR"
    assert line["reason"] == "no_certificate"
    assert server.metric("qbitel_connections_refused_total", reason="no_certificate") == 1


def test_openssl_as_server_without_alpn_is_a_good_target(end, application, dial, pki):
    client = end("client", application.getsockname()[1], "web", "--profile", "hybrid-l5")
    received = []

    def serve():
        with application.accept()[0] as sock:
            sock.settimeout(15)
            openssl = OpenSslEnd(sock, pki, "api", server=True)
            openssl.do(openssl.tls.do_handshake)
            received.append(openssl.do(lambda: openssl.tls.recv(100)))
            openssl.do(lambda: openssl.tls.send(b"answer"))
            openssl.tls.shutdown()
            openssl._flush()
            sock.recv(100)

    thread = threading.Thread(target=serve)
    thread.start()
    near = dial(client.port("outbound"))
    near.sendall(b"question")
    assert near.recv(100) == b"answer"
    assert near.recv(100) == b""
    near.close()
    thread.join(15)
    assert received == [b"question"]


def test_each_end_is_one_listener_with_its_target(pki):
    files, profile, there = pki.files("web"), PROFILES["qbitel"], Endpoint("example.org", 9443)
    client = tunnel.client(listen=HERE, target=there, files=files, profiles=(profile,), server_name="example.org")
    server = tunnel.server(
        listen=HERE, target=there, files=files, profiles=(profile,), allow=frozenset({"spiffe://a/b"})
    )
    (outbound,), (inbound,) = client.listeners, server.listeners
    assert (outbound.direction, inbound.direction) == (Direction.OUTBOUND, Direction.INBOUND)
    assert outbound.target == inbound.target == there
    assert not outbound.mesh_only
    assert not inbound.mesh_only
    assert client.server_name == "example.org"
    assert server.peers == {"spiffe://a/b"}


def test_a_target_without_a_port_is_refused(pki):
    with pytest.raises(UserError, match="port 0"):
        tunnel.client(listen=HERE, target=HERE, files=pki.files("web"), profiles=(PROFILES["qbitel"],))


def test_a_tunnel_that_holds_the_intermediates_heeds_their_lists(qbitel, application, dial, tmp_path):
    authority = tmp_path / "ca"

    def ca(*words: object) -> None:
        assert command(["ca", *map(str, words)]) == 0

    def start(role: str, target: int):
        folder = authority / {"server": "api", "client": "web"}[role]
        return qbitel(
            "tunnel", role, "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", "--cert", folder / "tls.crt",
            "--key", folder / "tls.key", "--ca", authority / "ca.crt", "--metrics", "127.0.0.1:0",
            "--intermediates", authority / "intermediates.crt", "--crl", authority / "crl.pem",
        )  # fmt: skip

    ca("init", authority)
    for name in ("api", "web"):
        ca("issue", authority, "--spiffe", f"spiffe://cluster.local/ns/default/sa/{name}")
    server = start("server", application.getsockname()[1])
    client = start("client", server.port("inbound"))
    near = dial(client.port("outbound"))
    near.sendall(b"x")
    far, _ = application.accept()
    with far:
        assert far.recv(10) == b"x"
    ca("revoke", authority, authority / "web" / "tls.crt")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda: server.metric("qbitel_cert_reloads_total", result="ok") >= 1)
    dial(client.port("outbound"))
    server.wait_for(lambda: server.metric("qbitel_connections_refused_total", reason="revoked") >= 1)
