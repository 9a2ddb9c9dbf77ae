"""One side of a relay over a real socket: in order, nothing lost, broken ones told."""

from __future__ import annotations

import os

import pytest

from proxy.side import Side, SideBroken
from proxy.sockets import reset


def test_what_the_kernel_does_not_take_is_kept_and_sent_in_order(tcp_pair):
    near, far = tcp_pair(buffer=4096)
    side = Side(near)
    first, second = os.urandom(1 << 20), b"and then this"
    shared = bytearray(first)
    side.send(memoryview(shared))
    assert 0 < len(side.pending) < len(first)
    shared[:] = bytes(len(shared))  # the shared buffer is somebody else's now
    side.send(memoryview(second))
    received = b""
    far.setblocking(True)
    far.settimeout(10)
    while len(received) < len(first) + len(second):
        received += far.recv(65536)
        side.send(side.pending)
    assert received == first + second
    assert not side.pending


def test_a_socket_that_takes_nothing_any_more_is_named(tcp_pair):
    near, far = tcp_pair()
    side = Side(near)
    reset(far)
    with pytest.raises(SideBroken) as caught:
        for _ in range(3):
            side.send(memoryview(b"x"))
    assert caught.value.side is side
    assert isinstance(caught.value.error, ConnectionError)
