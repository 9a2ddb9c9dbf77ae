"""The inbound side as a process: who gets to the application, who is refused, and what each refusal says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest

import proxy.inbound
from mesh.modes import MTLSMode
from mesh.names import ALPN_STREAM
from mesh.selectors import Workload
from pqtls import PROFILES, Alert, AlertReceived, ClientConfig, ClientConnection, HandshakeCompleted, TruncatedStream
from proxy.config import Direction, Endpoint, Limits, ListenerConfig
from proxy.credentials import utc_now
from proxy.inbound import _admitted, _first_bytes
from proxy.policy.config import PolicyConfig
from proxy.policy.rules import Rules
from proxy.reasons import Refused
from proxy.record import ConnectionRecord
from proxy.registry import LiveConnection
from proxy.sniff import Verdict as Sniffed
from tests.proxy.tunnels.services import handshaken, services_of
from tests.support.policies import document, resources

ADVICE_IN = {
    "expired": "Issue the peer a new certificate",
    "unknown_root": "same root",
    "foreign_trust_domain": "--trust-domain",
    "nothing_in_common": "--profile",
}


def speak_tls(sock: socket.socket, config: ClientConfig) -> ClientConnection:
    """The handshake of a mesh client; returns when the client thinks that it is done."""
    connection = ClientConnection(config)
    while not any(isinstance(event, HandshakeCompleted) for event in connection.events()):
        sock.sendall(connection.data_to_send())
        if not (data := sock.recv(65536)):
            raise EOFError("the server closed during the handshake")
        connection.receive_data(data)
    sock.sendall(connection.data_to_send())
    return connection


def receive(sock: socket.socket, connection: ClientConnection) -> bytes:
    if data := sock.recv(65536):
        connection.receive_data(data)
    else:
        connection.receive_eof()
    return b"".join(getattr(event, "data", b"") for event in connection.events() if hasattr(event, "data"))


def until_refused(sock: socket.socket, connection: ClientConnection) -> AlertReceived:
    with pytest.raises(AlertReceived) as caught:
        while True:
            receive(sock, connection)
    return caught.value


@pytest.fixture(scope="module")
def module_application():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.settimeout(15)
        yield listener


def start(factory, pki, application, *more):
    return factory(
        "proxy", "--no-capture", "--certs", pki.base / "api",
        "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{application.getsockname()[1]}",
        "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def strict(qbitel_for_all, pki, module_application):
    return start(qbitel_for_all, pki, module_application)


@pytest.fixture(scope="module")
def permissive(qbitel_for_all, pki, module_application):
    return start(qbitel_for_all, pki, module_application, "--mode", "PERMISSIVE")


def refused_line(sidecar, source: tuple[str, int], reason: str) -> dict:
    """The access-log line of the connection from `source`, refused for `reason`; one warning each names it, too.

    The reason is part of what is looked for: the kernel may give a later connection the port of an earlier one, whose
    line is there first, while a refused one is closed only when its peer has had time to read the alert.
    """
    name = f"{source[0]}:{source[1]}"
    lines = sidecar.wait_for(
        lambda: [line for line in sidecar.lines() if (line["source"], line["reason"]) == (name, reason)]
    )
    refusals = f" refused inbound connection from {name} "
    warnings = [text for text in sidecar.messages.splitlines() if refusals in text and f"({reason}," in text]
    assert len(warnings) == len(lines), (lines, sidecar.messages)
    assert lines[-1]["message"] in warnings[-1]
    return lines[-1]


def test_a_peer_of_the_mesh_reaches_the_application(strict, dial, pki, module_application):
    wire = dial(strict.port("inbound"))
    connection = speak_tls(wire, pki.bundle("web").client(True))
    connection.send_data(b"hello")
    wire.sendall(connection.data_to_send())
    application, _ = module_application.accept()
    with application:
        assert application.recv(100) == b"hello"
        application.sendall(b"world")
        received = b""
        while len(received) < 5:
            received += receive(wire, connection)
        assert received == b"world"


def test_a_hello_that_arrives_byte_by_byte_is_taken(strict, dial, pki, module_application):
    wire = dial(strict.port("inbound"))
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = ClientConnection(pki.bundle("web").client(True))
    for byte in connection.data_to_send():
        wire.sendall(bytes([byte]))
    connection_events = []
    while not connection_events:
        connection.receive_data(wire.recv(65536))
        connection_events = connection.events()
    # Data right behind Finished, in the same segment.
    finished = connection.data_to_send()
    connection.send_data(b"early")
    wire.sendall(finished + connection.data_to_send())
    application, _ = module_application.accept()
    with application:
        assert application.recv(100) == b"early"


@pytest.mark.parametrize(
    ("certs", "reason", "alert"),
    [
        ("expired", "expired", Alert.CERTIFICATE_EXPIRED),
        ("other_root", "unknown_root", Alert.UNKNOWN_CA),
        ("foreign_domain", "foreign_trust_domain", Alert.ACCESS_DENIED),
    ],
)
def test_a_peer_with_a_wrong_certificate_gets_its_alert_and_is_counted(strict, dial, pki, certs, reason, alert):
    before = strict.metric("qbitel_connections_refused_total", reason=reason, direction="inbound")
    wire = dial(strict.port("inbound"))
    connection = speak_tls(wire, pki.bundle(certs).client(True))
    assert until_refused(wire, connection).alert is alert
    line = refused_line(strict, wire.getsockname(), reason)
    assert line["flag"] == "IDENTITY_ERROR"
    assert ADVICE_IN[reason] in line["message"]
    after = strict.metric("qbitel_connections_refused_total", reason=reason, direction="inbound")
    assert after == before + 1
    assert strict.metric("qbitel_tls_handshakes_total", result=reason, direction="inbound") >= 1


def test_a_peer_that_offers_another_group_only_gets_handshake_failure(strict, dial, pki):
    bundle = pki.bundle("web")
    config = ClientConfig(
        credential=bundle.credential,
        trust=bundle.trust,
        now=utc_now,
        profiles=(PROFILES["hybrid-l5"],),
        alpn=(ALPN_STREAM,),
    )
    wire = dial(strict.port("inbound"))
    with pytest.raises(AlertReceived) as caught:
        speak_tls(wire, config)
    assert caught.value.alert is Alert.HANDSHAKE_FAILURE
    line = refused_line(strict, wire.getsockname(), "nothing_in_common")
    assert line["flag"] == "TLS_FAILURE"
    assert ADVICE_IN["nothing_in_common"] in line["message"]


def test_strict_closes_on_plaintext_and_says_what_to_do(strict, dial):
    client = dial(strict.port("inbound"))
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    line = refused_line(strict, client.getsockname(), "plaintext_refused")
    assert line["flag"] == "DENY"
    assert "Give the client a sidecar" in line["message"]
    assert strict.metric("qbitel_connections_refused_total", reason="plaintext_refused") >= 1


def test_strict_answers_foreign_tls_with_an_alert(strict, dial):
    context = ssl.create_default_context()
    client = dial(strict.port("inbound"))
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        context.wrap_socket(client, server_hostname="example.org", suppress_ragged_eofs=False)
    client_name = client.getsockname() if client.fileno() >= 0 else None
    line = strict.wait_for(lambda: [line for line in strict.lines() if line["reason"] == "foreign_tls"])[-1]
    assert client_name is None or line["source"].endswith(str(client_name[1]))
    assert line["flag"] == "DENY"


def test_a_port_probe_that_says_nothing_is_no_refusal(strict, dial):
    client = dial(strict.port("inbound"))
    source = "{}:{}".format(*client.getsockname())
    client.shutdown(socket.SHUT_WR)
    assert client.recv(10) == b""
    (line,) = strict.wait_for(lambda: [line for line in strict.lines() if line["source"] == source])
    assert (line["flag"], line["reason"]) == ("-", "closed_early")
    assert source not in strict.messages


def test_permissive_passes_plaintext_and_foreign_tls_as_they_came(permissive, dial, module_application):
    for first in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"):
        client = dial(permissive.port("inbound"))
        client.sendall(first)
        application, _ = module_application.accept()
        with application:
            assert application.recv(100) == first
            application.sendall(b"answer")
            assert client.recv(100) == b"answer"
    assert permissive.metric("qbitel_plaintext_connections_total", direction="inbound") == 2


def test_permissive_does_not_hang_a_protocol_in_which_the_server_speaks_first(permissive, dial, module_application):
    client = dial(permissive.port("inbound"))
    application, _ = module_application.accept()
    with application:
        application.sendall(b"220 welcome\r\n")
        assert client.recv(100) == b"220 welcome\r\n"


@pytest.mark.parametrize(("port", "limits"), [
    (25, Limits(peek_timeout=1000, server_first_timeout=0.01)),
    (80, Limits(peek_timeout=0.01, server_first_timeout=1000)),
])  # fmt: skip
def test_at_ports_where_servers_speak_first_a_silent_client_has_less_time(run, pki, tcp_pair, port, limits):
    async def main():
        services = services_of(pki.bundle("api"), limits=limits)
        with contextlib.closing(services.reactor):
            _, accepted = tcp_pair()
            assert await _first_bytes(services, accepted, "10.0.0.1", MTLSMode.PERMISSIVE, port) == (
                Sniffed.NOT_TLS,
                b"",
            )

    run(main())


def test_a_sidecar_of_the_mesh_is_recognised_at_a_port_where_servers_speak_first(run, pki, tcp_pair):
    async def main():
        services = services_of(pki.bundle("api"), limits=Limits(server_first_timeout=30))
        with contextlib.closing(services.reactor):
            dialled, accepted = tcp_pair()
            hello = ClientConnection(pki.bundle("web").client(True)).data_to_send()
            dialled.send(hello)
            assert await _first_bytes(services, accepted, "10.0.0.1", MTLSMode.PERMISSIVE, 3306) == (
                Sniffed.OUR_TLS,
                hello,
            )

    run(main())


def test_a_hello_that_comes_byte_by_byte_has_its_time_once_and_not_for_each_byte(run, pki, tcp_pair):
    async def main():
        services = services_of(pki.bundle("api"), limits=Limits(first_bytes_timeout=0.2))
        dialled, accepted = tcp_pair()
        hello = ClientConnection(pki.bundle("web").client(True)).data_to_send()

        async def dribble():
            for byte in hello:  # 17 seconds of it, at least
                dialled.send(bytes([byte]))
                await asyncio.sleep(0.01)

        dribbling = asyncio.ensure_future(dribble())
        with contextlib.closing(services.reactor), pytest.raises(Refused) as refused:
            await _first_bytes(services, accepted, "10.0.0.1", MTLSMode.STRICT, 80)
        dribbling.cancel()
        return refused.value.verdict.reason

    assert run(main()) == "first_bytes_timeout"


def test_a_hello_in_two_pieces_is_put_together(run, pki, tcp_pair):
    async def main():
        services = services_of(pki.bundle("api"), limits=Limits(first_bytes_timeout=30))
        dialled, accepted = tcp_pair()
        hello = ClientConnection(pki.bundle("web").client(True)).data_to_send()
        with contextlib.closing(services.reactor):
            dialled.send(hello[:700])
            reading = asyncio.ensure_future(_first_bytes(services, accepted, "10.0.0.1", MTLSMode.STRICT, 80))
            while not len(services.reactor):  # it waits for more
                await asyncio.sleep(0)
            dialled.send(hello[700:])
            return await reading == (Sniffed.OUR_TLS, hello)

    assert run(main())


@pytest.mark.parametrize(
    ("first", "received_as"),
    [(b"GET /", "plaintext"), (b"", "silent"), (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "plaintext")],
)
def test_the_log_says_what_came_where_plaintext_is_let_in(permissive, dial, module_application, first, received_as):
    client = dial(permissive.port("inbound"))
    client.sendall(first)
    application, _ = module_application.accept()
    application.close()
    source = "{}:{}".format(*client.getsockname())
    client.close()
    (line,) = permissive.wait_for(lambda: [line for line in permissive.lines() if line["source"] == source])
    assert line["received_as"] == received_as
    assert permissive.metric("qbitel_plaintext_peer_connections_total", source="127.0.0.1") >= 1


def test_permissive_takes_the_mesh_too(permissive, dial, pki, module_application):
    wire = dial(permissive.port("inbound"))
    connection = speak_tls(wire, pki.bundle("web").client(True))
    application, _ = module_application.accept()
    with application:
        application.sendall(b"in TLS")
        received = b""
        while len(received) < 6:
            received += receive(wire, connection)
        assert received == b"in TLS"


def test_disable_passes_everything_as_bytes(inbound_sidecar, application, dial, pki):
    sidecar = inbound_sidecar(application.getsockname()[1], "--mode", "DISABLE")
    client = dial(sidecar.port("inbound"))
    hello = ClientConnection(pki.bundle("web").client(True)).data_to_send()
    client.sendall(hello)
    accepted, _ = application.accept()
    with accepted:
        received = b""
        while len(received) < len(hello):
            received += accepted.recv(65536)
        assert received == hello


def test_rules_that_change_while_the_application_is_dialled_hold_for_the_one_who_waits(
    run, pki, tcp_pair, tmp_path, monkeypatch
):
    async def main():
        services = services_of(pki.bundle("api"), policy=PolicyConfig(folder=tmp_path))
        services.gate.take_up(rules_of())
        dialled, theirs = tcp_pair()

        async def dial_while_rules_change(*_arguments):
            services.gate.take_up(rules_of("AuthorizationPolicy"))
            return dialled

        monkeypatch.setattr(proxy.inbound, "_dial_application", dial_while_rules_change)
        with contextlib.closing(services.reactor):
            record = ConnectionRecord(services.sinks, Direction.INBOUND, Endpoint("10.0.0.9", 1), "-", "qbitel")
            live = LiveConnection(record, 0.0, lambda: None)
            listener = ListenerConfig(direction=Direction.INBOUND, bind=Endpoint("127.0.0.1", 0))
            _, _, event, _ = handshaken(pki)
            with pytest.raises(Refused, match="no ALLOW policy matches"):
                await _admitted(listener, services, live, Endpoint("127.0.0.1", 80), event)
        assert dialled.fileno() == -1  # reset
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)

    run(main())


def rules_of(*kinds: str) -> Rules:
    """Rules of a folder with an empty resource of each kind: an AuthorizationPolicy of that sort allows nothing."""
    found = resources("---\n".join(document(kind, {}, namespace="default") for kind in kinds))
    workload = Workload("default", {}, "api")
    return Rules.of(found, workload, default_mode=MTLSMode.STRICT, trust_domain="cluster.local")


def test_whoever_cannot_be_connected_to_the_application_has_its_place_back(inbound_sidecar, dial, pki):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening
        sidecar = inbound_sidecar(nobody.getsockname()[1], "--max-connections-per-peer", "1")
        for _ in range(2):
            wire = dial(sidecar.port("inbound"))
            speak_tls(wire, pki.bundle("web").client(True))
            refused_line(sidecar, wire.getsockname(), "connect_failed")


def test_an_application_that_does_not_listen_resets_the_peer_and_says_so(inbound_sidecar, dial, pki):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused, and nobody takes the port
        sidecar = inbound_sidecar(nobody.getsockname()[1])
        wire = dial(sidecar.port("inbound"))
        connection = speak_tls(wire, pki.bundle("web").client(True))
        with pytest.raises((ConnectionResetError, TruncatedStream)):
            while True:  # first the tickets come, then the end
                receive(wire, connection)
        line = refused_line(sidecar, wire.getsockname(), "connect_failed")
    assert line["flag"] == "CONNECT"
    assert line["peer_identity"] == pki.identity("web")
    assert "is the program there up" in line["message"]


def test_a_peer_that_stops_in_the_middle_of_the_handshake_is_not_waited_for(inbound_sidecar, application, dial, pki):
    sidecar = inbound_sidecar(application.getsockname()[1], "--handshake-timeout", "0.3")
    wire = dial(sidecar.port("inbound"))
    wire.sendall(ClientConnection(pki.bundle("web").client(True)).data_to_send())
    with pytest.raises(ConnectionResetError):
        while wire.recv(65536):
            pass
    assert refused_line(sidecar, wire.getsockname(), "handshake_timeout")["flag"] == "TIMEOUT"
