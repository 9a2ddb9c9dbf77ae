"""Bulk leaves its tunnel: not a byte is lost, whatever happens on the way, and what is no bulk stays."""

from __future__ import annotations

import hashlib
import os
import socket
import threading

import pytest

from proxy.config import Limits
from proxy.tunnels.moving import Movable

MB = 1 << 20


@pytest.fixture
def sidecars(inbound_sidecar, outbound_sidecar, application):
    inbound = inbound_sidecar(application.getsockname()[1])
    return outbound_sidecar(inbound.port("inbound")), inbound


def exchange(near: socket.socket, far: socket.socket, up: int, down: int) -> None:
    """Send so many bytes each way at once, and compare."""
    payloads = {near: os.urandom(MB) * up, far: os.urandom(MB) * down}
    found: dict[socket.socket, str] = {}

    def feed(end):
        end.sendall(payloads[end])
        end.shutdown(socket.SHUT_WR)

    def digest(end):
        running = hashlib.sha256()
        while data := end.recv(1 << 18):
            running.update(data)
        found[end] = running.hexdigest()

    threads = [threading.Thread(target=work, args=(end,)) for work in (feed, digest) for end in (near, far)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found[far] == hashlib.sha256(payloads[near]).hexdigest()
    assert found[near] == hashlib.sha256(payloads[far]).hexdigest()


@pytest.mark.parametrize(("up", "down"), [(40, 0), (0, 40), (30, 30)])
def test_bulk_either_way_arrives_unchanged_and_goes_on_in_a_connection_of_its_own(
    sidecars, dial, application, up, down
):
    outbound = sidecars[0]
    near = dial(outbound.port("outbound"))
    with application.accept()[0] as far:
        far.settimeout(15)
        exchange(near, far, up, down)
    for sidecar in sidecars:
        (line,) = sidecar.wait_for(sidecar.lines)
        assert (line["flag"], line["bytes_received"], line["bytes_sent"]) == ("-", up * MB, down * MB)
    assert [line["resumed"] for line in outbound.lines("handshake")] == [False, True]
    outbound.wait_for(lambda: outbound.metric("qbitel_connections_open", direction="outbound") == 0)


def test_small_messages_stay_in_the_tunnel_however_many(sidecars, dial, application):
    outbound, _ = sidecars
    near = dial(outbound.port("outbound"))
    with application.accept()[0] as far:
        far.settimeout(15)
        block = os.urandom(8000)
        for _ in range(400):
            near.sendall(block)
            got = b""
            while len(got) < len(block):
                got += far.recv(8000)
            assert got == block
            far.sendall(b"ok")
            assert near.recv(2) == b"ok"
    assert len(outbound.lines("handshake")) == 1


@pytest.mark.parametrize("who", ["near", "far"])
def test_a_reset_after_the_move_is_a_reset(sidecars, dial, application, who):
    outbound, _ = sidecars
    near = dial(outbound.port("outbound"))
    with application.accept()[0] as far:
        far.settimeout(15)
        stop = threading.Event()

        seen: list[type[OSError]] = []

        def feed():
            try:
                while not stop.is_set():
                    near.sendall(bytes(MB))
            except OSError as error:
                seen.append(type(error))  # whoever calls first is told of the RST, the other is not

        feeder = threading.Thread(target=feed)
        feeder.start()
        total = 0
        while total < 20 * MB:
            total += len(far.recv(MB))
        outbound.wait_for(lambda: len(outbound.lines("handshake")) == 2)
        ending, other = (near, far) if who == "near" else (far, near)
        stop.set()
        ending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        ending.shutdown(socket.SHUT_RD)
        ending.close()
        try:
            while other.recv(MB):
                pass
        except OSError as error:
            seen.append(type(error))
        feeder.join(15)
        assert ConnectionResetError in seen


def test_where_the_other_worker_answers_the_bulk_stays_and_arrives(
    inbound_sidecar, outbound_sidecar, application, dial
):
    inbound = inbound_sidecar(application.getsockname()[1], "--workers", "3")
    outbound = outbound_sidecar(inbound.port("inbound"))
    for _ in range(4):
        near = dial(outbound.port("outbound"))
        with application.accept()[0] as far:
            far.settimeout(15)
            exchange(near, far, 5, 5)


class Stub:
    """What the list of movable streams sees of a stream."""

    can_move = True


class Event:
    """What it sees of a handshake."""

    def __init__(self, peer: str) -> None:
        self.peer_identity = peer


def test_only_the_peer_that_opened_a_stream_finds_it():
    movable, stream = Movable(), Stub()
    movable.add(b"id", stream, Event("spiffe://a/b"))
    assert movable.find(b"id", Event("spiffe://a/b")) is stream
    assert movable.find(b"id", Event("spiffe://a/thief")) is None
    assert movable.find(b"other", Event("spiffe://a/b")) is None


def test_an_id_that_is_used_twice_stays_with_the_first_and_is_gone_with_it():
    movable, first, second = Movable(), Stub(), Stub()
    movable.add(b"id", first, Event("p"))
    movable.add(b"id", second, Event("p"))
    assert movable.find(b"id", Event("p")) is first
    movable.remove(b"id")
    movable.remove(b"id")
    assert movable.find(b"id", Event("p")) is None


def test_a_stream_that_is_about_to_end_is_not_found():
    movable, stream = Movable(), Stub()
    stream.can_move = False
    movable.add(b"id", stream, Event("p"))
    assert movable.find(b"id", Event("p")) is None
    assert Limits().first_bytes_timeout > 0
