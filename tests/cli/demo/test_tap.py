from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.demo.processes import Child, module
from cli.demo.stage import Endpoint, Wire

PATTERNS = {"request": b"token-request", "response": b"token-response"}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def server(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_server(("127.0.0.1", 0)))


def open_tap(server: socket.socket, stack: ExitStack, *options: str) -> Wire:
    words = [*module("tap"), "--target-port", str(server.getsockname()[1]), *options]
    child = Child("the tap", words, ends_with_input=True)
    stack.callback(child.stop)
    wire = Wire(child, Endpoint("127.0.0.1", child.expect("ready", 10)["port"]))
    wire.watch(PATTERNS)
    return wire


def connect(wire: Wire, server: socket.socket, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    client = stack.enter_context(socket.create_connection(wire.endpoint.pair, 5))
    accepted, _ = server.accept()
    accepted.settimeout(5)
    return client, stack.enter_context(accepted)


def test_it_passes_bytes_on_and_finds_them(server: socket.socket, stack: ExitStack) -> None:
    wire = open_tap(server, stack)
    client, accepted = connect(wire, server, stack)
    client.sendall(b"a token-request")
    assert accepted.recv(100) == b"a token-request"
    accepted.sendall(b"a token-response")
    assert client.recv(100) == b"a token-response"
    report = wire.report()
    assert report.hits == {"request": 1, "response": 1}
    assert (report.bytes, report.flows, report.tls_flows) == (31, 1, 0)


def test_the_end_of_one_direction_leaves_the_other_open(server: socket.socket, stack: ExitStack) -> None:
    client, accepted = connect(open_tap(server, stack), server, stack)
    client.shutdown(socket.SHUT_WR)
    assert accepted.recv(1) == b""
    accepted.sendall(b"late")
    assert client.recv(10) == b"late"


def test_a_reset_is_passed_on_as_a_reset(server: socket.socket, stack: ExitStack) -> None:
    client, accepted = connect(open_tap(server, stack), server, stack)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(ConnectionResetError):
        accepted.recv(1)


def test_where_nobody_listens_the_client_sees_a_reset(stack: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        wire = open_tap(gone, stack)
    with pytest.raises(ConnectionResetError), socket.create_connection(wire.endpoint.pair, 5) as client:
        client.recv(1)


def test_the_kept_file_holds_what_passed(server: socket.socket, stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "kept.pcap"
    wire = open_tap(server, stack, "--pcap", str(path))
    client, accepted = connect(wire, server, stack)
    client.sendall(b"hello tap")
    assert accepted.recv(100) == b"hello tap"
    client.close()
    accepted.close()
    wire.close()
    assert b"hello tap" in path.read_bytes()
