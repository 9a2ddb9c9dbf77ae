"""The tap on a real virtual cable, with real connections over it."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.demo.frames import MAX_FRAME, PCAP_HEADER, parse_segment
from cli.demo.network import INTERFACE, Namespace, make_pair
from cli.demo.processes import Child, Place, module
from cli.demo.stage import Endpoint, Wire

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets need root")]

PATTERNS = {"request": b"token-request", "response": b"token-response"}


@pytest.fixture
def pods() -> Iterator[tuple[Namespace, Namespace]]:
    with ExitStack() as stack:
        yield make_pair(stack)


def tap(pod: Namespace, stack: ExitStack, *options: str) -> Wire:
    words = [*module("capture"), "--interface", INTERFACE, *options]
    child = Child("the tap", Place(network=pod.path).wrap(words), ends_with_input=True)
    stack.callback(child.stop)
    child.expect("ready", 10)
    return Wire(child, Endpoint(pod.address, 0))


def exchange(pods: tuple[Namespace, Namespace], request: bytes, response: bytes) -> None:
    """One connection from pod-a to pod-b with bytes in both directions."""
    first, second = pods
    with second.run(lambda: socket.create_server((second.address, 0))) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                left = len(request)
                while left:
                    left -= len(connection.recv(1 << 16))
                connection.sendall(response)

        server = threading.Thread(target=serve)
        server.start()
        with first.run(lambda: socket.create_connection((second.address, port), 5)) as client:
            client.sendall(request)
            received = 0
            while received < len(response):
                received += len(client.recv(1 << 16))
        server.join()


def test_plaintext_is_found_in_both_directions(pods: tuple[Namespace, Namespace]) -> None:
    with ExitStack() as stack:
        wire = tap(pods[1], stack)
        wire.watch(PATTERNS)
        exchange(pods, b"..token-request..", b"..token-response..token-response")
        report = wire.report()
    assert report.hits == {"request": 1, "response": 2}
    assert report.complete
    assert (report.flows, report.tls_flows) == (1, 0)
    assert bytes.fromhex(report.sample).startswith(b"..token-request")


def test_every_byte_of_a_large_transfer_is_seen_and_none_lost(pods: tuple[Namespace, Namespace]) -> None:
    size = 32 << 20
    line = b"token-response" + bytes(2034)
    with ExitStack() as stack:
        wire = tap(pods[1], stack)
        wire.watch(PATTERNS)
        exchange(pods, b"token-request", line * (size // len(line)))
        report = wire.report()
    assert report.complete
    assert report.bytes >= size // len(line) * len(line)
    assert report.hits["response"] >= size // len(line)


def test_watching_anew_forgets_what_was_seen(pods: tuple[Namespace, Namespace]) -> None:
    with ExitStack() as stack:
        wire = tap(pods[1], stack)
        wire.watch(PATTERNS)
        exchange(pods, b"token-request", b"x")
        wire.watch(PATTERNS)
        assert wire.report().total_hits == 0


def test_the_kept_file_holds_the_same_bytes(pods: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    path = tmp_path / "kept.pcap"
    with ExitStack() as stack:
        wire = tap(pods[1], stack, "--pcap", str(path))
        wire.watch(PATTERNS)
        exchange(pods, b"one token-request", b"one token-response")
        wire.close()
    content = path.read_bytes()
    assert content.startswith(PCAP_HEADER)
    at, payloads = len(PCAP_HEADER), []
    while at < len(content):
        _, _, kept, original = struct.unpack_from("<IIII", content, at)
        assert kept == original <= MAX_FRAME
        frame = bytearray(content[at + 16 : at + 16 + kept])
        if segment := parse_segment(frame, kept):
            payloads.append(bytes(frame[segment.start : segment.end]))
        at += 16 + kept
    assert b"one token-request" in payloads
    assert b"one token-response" in payloads


def test_frames_that_the_kernel_drops_are_counted(pods: tuple[Namespace, Namespace]) -> None:
    """The tap is stopped while more crosses the wire than its buffer holds."""
    with ExitStack() as stack:
        wire = tap(pods[1], stack)
        wire.watch(PATTERNS)
        os.kill(wire.tap.pid, 19)  # SIGSTOP
        for _ in range(3):
            exchange(pods, b"r", bytes(100 << 20))
        os.kill(wire.tap.pid, 18)  # SIGCONT
        report = wire.report()
    assert report.dropped > 0
    assert not report.complete
