"""One side of a relay over a real socket: in order, nothing lost, broken ones told."""

from __future__ import annotations

import asyncio
import os
import select
import socket

import pytest

from proxy.reactor import Reactor
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


def test_what_is_sent_last_waits_for_fin_and_leaves_with_it(tcp_pair):
    near, far = tcp_pair()
    side = Side(near)
    side.send_last(memoryview(b"the last words"))
    with pytest.raises(BlockingIOError):
        far.recv(100)
    side.fin_wanted = True
    assert side.is_due_to_finish
    side.finish_writing()
    assert not side.is_due_to_finish
    far.setblocking(True)
    far.settimeout(10)
    assert (far.recv(100), far.recv(100)) == (b"the last words", b"")


def test_nothing_and_the_end_and_a_broken_socket_are_told_apart(tcp_pair):
    near, far = tcp_pair()
    side, buffer = Side(near), memoryview(bytearray(10))
    assert side.receive(buffer) is None
    far.shutdown(socket.SHUT_WR)
    select.select([near], [], [], 10)
    assert side.receive(buffer) == 0
    reset(far)
    with pytest.raises(SideBroken):
        while True:
            side.send(memoryview(b"x"))


def test_it_is_watched_for_what_it_waits_for_and_no_longer_than_it_waits(run, tcp_pair):
    async def main():
        reactor = Reactor(asyncio.get_running_loop())
        near, far = tcp_pair()
        side, seen = Side(near), []

        class Handler:
            def on_ready(self, fd, mask):
                seen.append(mask)
                if side.pending:
                    side.send(side.pending)
                    side.watch(reactor, self, may_read=False)
                elif side.receive(memoryview(bytearray(10))) == 0:
                    side.finished_reading = True
                    side.watch(reactor, self, may_read=True)

        handler = Handler()
        side.pending = memoryview(b"more")
        side.watch(reactor, handler, may_read=True)
        while not seen:
            await asyncio.sleep(0)
        assert (seen, far.recv(10)) == ([select.EPOLLOUT], b"more")
        side.watch(reactor, handler, may_read=True)
        far.shutdown(socket.SHUT_WR)
        while len(seen) < 2:
            await asyncio.sleep(0)
        assert seen[1:] == [select.EPOLLIN]
        for _ in range(5):  # the end is there for ever, and is told once
            await asyncio.sleep(0)
        assert len(seen) == 2
        side.give_up(reactor)
        assert len(reactor) == 0
        near.close()
        reactor.close()

    run(main())
