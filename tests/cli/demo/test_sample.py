from __future__ import annotations

import hashlib
import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cli.demo.content import Markers, file_blocks
from cli.demo.processes import Child, module

TOKEN = "token-1"


@pytest.fixture
def server() -> Iterator[tuple[Child, int]]:
    with ExitStack() as stack:
        child = Child("the sample", [*module("sample"), "--host", "127.0.0.1", "--port", "0", "--token", TOKEN])
        stack.callback(child.stop)
        yield child, child.expect("ready", 10)["port"]


@pytest.fixture
def connection(server: tuple[Child, int]) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server[1], timeout=5)
    yield connection
    connection.close()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, response.read()


def test_small_answers_carry_the_marker_and_the_connection_is_kept(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "GET", "/small")[0] == 200
    kept = connection.sock
    assert Markers(TOKEN).response in ask(connection, "GET", "/")[1]
    assert connection.sock is kept is not None


def test_an_echo_is_what_was_sent(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "POST", "/echo", bytes(range(256))) == (200, bytes(range(256)))


def test_a_file_arrives_and_its_checksum_is_said(
    server: tuple[Child, int], connection: http.client.HTTPConnection
) -> None:
    size = (3 << 20) + 5
    status, body = ask(connection, "GET", f"/file?bytes={size}")
    expected = hashlib.sha256()
    for block in file_blocks(Markers(TOKEN), size):
        expected.update(block)
    assert (status, len(body)) == (200, size)
    assert hashlib.sha256(body).hexdigest() == expected.hexdigest()
    sent = server[0].expect("file_sent", 5)
    assert (sent["bytes"], sent["sha256"]) == (size, expected.hexdigest())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/file?bytes=0", 400), ("GET", "/file?bytes=x", 400), ("GET", "/file", 400), ("GET", "/none", 404),
     ("POST", "/else", 400), ("GET", f"/file?bytes={1 << 40}", 400)],
)  # fmt: skip
def test_what_it_does_not_know_is_refused(
    connection: http.client.HTTPConnection, method: str, path: str, status: int
) -> None:
    assert ask(connection, method, path)[0] == status


def test_a_client_that_breaks_off_is_one_line_and_does_no_harm(server: tuple[Child, int]) -> None:
    child, port = server
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /file?bytes=100000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    assert ask(connection, "GET", "/small")[0] == 200
    connection.close()
    assert not any("Traceback" in line for line in child.last_lines)
