from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cli.demo.errors import PartFailedError
from cli.demo.processes import Child, module

TOKEN = "token-1"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def client(stack: ExitStack, mode: str, port: int, *options: str) -> Child:
    child = Child("the client", [*module("client"), mode, "--host", "127.0.0.1", "--port", str(port), *options])
    stack.callback(child.stop)
    return child


def sample(stack: ExitStack) -> int:
    child = Child("the sample", [*module("sample"), "--host", "127.0.0.1", "--port", "0", "--token", TOKEN])
    stack.callback(child.stop)
    return int(child.expect("ready", 10)["port"])


def serve(stack: ExitStack, handle: Callable[[socket.socket], None]) -> int:
    """A server of one connection."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def body() -> None:
        connection, _ = listener.accept()
        with connection:
            handle(connection)

    thread = threading.Thread(target=body)
    thread.start()
    stack.callback(thread.join)
    return int(listener.getsockname()[1])


def test_latency_has_a_time_for_each_request(stack: ExitStack) -> None:
    options = ["--token", TOKEN, "--requests", "20", "--new-connections", "5"]
    times = client(stack, "latency", sample(stack), *options).expect("latency", 10)
    assert len(times["kept_us"]) == 20
    assert len(times["fresh_us"]) == 5
    assert min(times["kept_us"] + times["fresh_us"]) > 0


def test_a_file_is_counted_and_checked(stack: ExitStack) -> None:
    fetched = client(stack, "fetch", sample(stack), "--bytes", "3000000").expect("fetched", 10)
    assert fetched["bytes"] == 3_000_000
    assert len(fetched["sha256"]) == 64
    assert fetched["seconds"] > 0


def test_a_wrong_answer_is_one_line_and_exit_code_1(stack: ExitStack) -> None:
    child = client(stack, "latency", sample(stack), "--token", "another", "--requests", "0", "--new-connections", "1")
    with pytest.raises(PartFailedError) as failure:
        child.expect("latency", 10)
    (line,) = failure.value.lines
    assert "WrongAnswerError: /small answered 200" in line


def test_background_says_numbers_each_second(stack: ExitStack) -> None:
    child = client(stack, "background", sample(stack), "--token", TOKEN)
    first, second = child.expect("second", 10), child.expect("second", 10)
    assert second["requests"] > first["requests"] > 0
    assert first["error"] == second["error"] == ""


def probe(stack: ExitStack, handle: Callable[[socket.socket], None], *options: str) -> dict[str, object]:
    child = client(stack, "probe", serve(stack, handle), "--token", TOKEN, "--timeout", "1", *options)
    event = child.expect("probe", 10)
    return {"kind": event["kind"], "answer": bytes.fromhex(event["answer"])}


def test_a_server_that_speaks_first_is_listened_to(stack: ExitStack) -> None:
    assert probe(stack, lambda c: c.sendall(b"220 hello\r\n")) == {"kind": "server-first", "answer": b"220 hello\r\n"}


def test_http_is_recognised_and_the_request_carries_the_marker(stack: ExitStack) -> None:
    requests: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        requests.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nbody")

    assert probe(stack, handle)["kind"] == "http"
    assert f"{TOKEN}-request".encode() in requests[0]


def test_other_protocols_are_told_apart(stack: ExitStack) -> None:
    def other(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"-ERR what?\r\n")

    def reset(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def silent(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.recv(1)  # until the client gives up

    no_wait = ("--listen-first", "0")
    assert probe(stack, other, *no_wait) == {"kind": "other", "answer": b"-ERR what?\r\n"}
    assert probe(stack, reset, *no_wait)["kind"] == "reset"
    assert probe(stack, lambda c: c.recv(4096) and None, *no_wait)["kind"] == "closed"
    assert probe(stack, silent, *no_wait)["kind"] == "silent"


def test_waiting_ends_when_somebody_listens(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    client(stack, "wait", listener.getsockname()[1], "--timeout", "5").expect("accepts", 10)


def test_waiting_ends_when_nobody_does(stack: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PartFailedError, match="exit code 1") as failure:
        client(stack, "wait", port, "--timeout", "0.3").finish(10)
    assert "ConnectionRefusedError" in failure.value.lines[-1]
