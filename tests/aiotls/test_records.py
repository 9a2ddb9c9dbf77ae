"""Records over a real pair of sockets: what is sealed here is read there, however it is cut."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from aiotls.buffers import PIECE
from aiotls.records import Records
from pqtls import PeerError, TruncatedStream
from tests.support.connections import fresh


@dataclass
class Pair:
    """A client's end, a server's end, and the client's socket."""

    client: Records
    server: Records
    wire: socket.socket


@pytest.fixture
def pair() -> Iterator[Pair]:
    client, server = fresh()
    for _ in range(4):
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield Pair(Records(ours, client), Records(theirs, server), ours)


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, PIECE])
def test_what_is_sealed_is_read(pair: Pair, size: int) -> None:
    sent = os.urandom(size)
    records = bytes(pair.client.seal(memoryview(sent)))
    received = b""
    while records:
        taken = pair.wire.send(records[:50_000])
        records = records[taken:]
        received += pair.server.receive()
    assert received == sent


def test_a_record_in_single_bytes_is_kept_until_it_is_whole(pair: Pair) -> None:
    records = bytes(pair.client.seal(memoryview(b"hello")))
    received = []
    for byte in records:
        pair.wire.send(bytes([byte]))
        received.append(pair.server.receive())
    assert received == [b""] * (len(records) - 1) + [b"hello"]


def test_an_end_without_close_notify_is_the_peer_s_fault(pair: Pair) -> None:
    pair.wire.send(bytes(pair.client.seal(memoryview(b"hello")))[:-1])
    assert pair.server.receive() == b""
    pair.wire.close()
    with pytest.raises(TruncatedStream):
        pair.server.receive()


def test_a_changed_record_is_the_peer_s_fault_wherever_it_was_changed() -> None:
    for place in range(5 + 5 + 1 + 16):
        client, server = fresh()
        for _ in range(4):
            server.receive_data(client.data_to_send())
            client.receive_data(server.data_to_send())
        ours, theirs = socket.socketpair()
        with ours, theirs:
            records = bytearray(Records(ours, client).seal(memoryview(b"hello")))
            records[place] ^= 0x40
            ours.send(records)
            ours.close()
            theirs.setblocking(False)
            reader = Records(theirs, server)
            with pytest.raises(PeerError):
                for _ in range(2):  # a length that is too large waits for more, and none comes
                    reader.receive()


def test_nothing_there_is_said_as_the_kernel_says_it(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pair.server.receive()
    with pytest.raises(BlockingIOError):
        pair.server.discard()


def test_what_is_discarded_is_read_to_its_end(pair: Pair) -> None:
    pair.wire.send(b"anything at all")
    assert pair.server.discard()
    pair.wire.close()
    assert not pair.server.discard()
