"""A relay as a task waits for it: its outcome, its end with the task's, and what it cannot begin."""

from __future__ import annotations

import asyncio
import errno

import pytest

from proxy.engine import Scratch
from proxy.reactor import Reactor
from proxy.relay import End
from proxy.relaying import relay


def test_it_is_over_when_both_directions_are_and_says_what_it_carried(run, tcp_pair):
    async def main():
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        (app, application), (peer, wire) = tcp_pair(), tcp_pair()
        started = []
        task = asyncio.ensure_future(
            relay(reactor, Scratch(), application, wire, None, started=started.append, first=b"was read before")
        )
        assert await loop.sock_recv(app, 100) == b"was read before"
        await loop.sock_sendall(app, b"question")
        assert await loop.sock_recv(peer, 100) == b"question"
        app.close()
        peer.close()
        outcome = await task
        assert started[0].ended
        assert len(reactor) == 0
        reactor.close()
        return outcome.end, outcome.from_application, outcome.from_wire

    assert run(main()) == (End.CLOSED, len(b"question"), len(b"was read before"))


def test_with_its_task_it_ends_and_both_sides_hear_of_that(run, tcp_pair):
    async def main():
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        (app, application), (peer, wire) = tcp_pair(), tcp_pair()
        task = asyncio.ensure_future(relay(reactor, Scratch(), application, wire, None, started=lambda _: None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for sock in (app, peer):
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(sock, 100)
        assert len(reactor) == 0
        reactor.close()

    run(main())


def test_a_relay_that_cannot_start_leaves_nothing_behind(run, tcp_pair):
    class FullReactor(Reactor):
        """An epoll that takes one descriptor and no more (ENOSPC: fs.epoll.max_user_watches)."""

        def register(self, fd, events, handler):
            if len(self):
                raise OSError(errno.ENOSPC, "No space left on device")
            super().register(fd, events, handler)

    async def main():
        reactor = FullReactor(asyncio.get_running_loop())
        (_, application), (_, wire) = tcp_pair(), tcp_pair()
        with pytest.raises(OSError, match="No space"):
            await relay(reactor, Scratch(), application, wire, None, started=lambda _: None)
        assert len(reactor) == 0
        reactor.close()
        return application.fileno(), wire.fileno()

    assert run(main()) == (-1, -1)
