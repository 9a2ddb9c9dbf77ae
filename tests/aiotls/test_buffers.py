"""The outbox over real sockets, and the room that the shared buffers have."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest

from aiotls.buffers import PIECE, Outbox, scratch
from pqtls import sealed_size
from pqtls.record import MAX_RECORD


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def test_what_the_kernel_does_not_take_waits_and_arrives_in_order(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    generator = random.Random(7)  # noqa: S311  # sizes of pieces
    outbox, sent, received = Outbox(), bytearray(), bytearray()
    for _ in range(300):
        piece = generator.randbytes(generator.randrange(1, 20_000))
        outbox.send(ours, memoryview(piece))
        sent += piece
    assert outbox.size > 0

    while outbox.size:
        received += theirs.recv(2**16)
        before = outbox.size
        assert outbox.flush(ours) == before - outbox.size
    while len(received) < len(sent):
        received += theirs.recv(2**16)

    assert received == sent


def test_what_waits_is_a_copy(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    outbox, source = Outbox(), bytearray(b"a" * 2**21)
    outbox.send(ours, memoryview(source))
    source[:] = b"b" * len(source)
    received = bytearray()
    while outbox.size or len(received) < len(source):
        received += theirs.recv(2**20)
        outbox.flush(ours)
    assert received == b"a" * len(source)


def test_a_cleared_outbox_is_empty(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, _theirs = sockets
    outbox = Outbox()
    outbox.send(ours, memoryview(bytes(2**22)))
    assert outbox.size
    outbox.clear()
    assert outbox.size == 0
    assert outbox.flush(ours) == 0


def test_a_broken_socket_raises_what_the_kernel_says(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    theirs.close()
    with pytest.raises(BrokenPipeError):
        Outbox().send(ours, memoryview(b"x"))


@pytest.mark.parametrize("fragment_size", [63, 1000, 2**14])
def test_the_shared_buffers_hold_a_piece_whatever_record_size_the_peer_asked_for(fragment_size: int) -> None:
    assert len(scratch().records) >= sealed_size(PIECE, fragment_size)
    assert len(scratch().ciphertext) >= MAX_RECORD + PIECE
    assert len(scratch().plaintext) > len(scratch().ciphertext)


def test_two_threads_share_no_buffer() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(scratch()))
    thread.start()
    thread.join()
    assert found[0] is not scratch()
    assert scratch() is scratch()
