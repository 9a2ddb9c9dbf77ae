"""Accepting many, and closing without losing who waits. (Exhaustion is tested with a real process in test_server.)"""

from __future__ import annotations

import asyncio
import itertools
import select
import socket

import pytest

from proxy import sockets
from proxy.config import Endpoint
from proxy.listener import Listener
from proxy.reactor import Reactor


@pytest.fixture
def listening(run):
    """Run a scenario(loop, listener, port, accepted list)."""

    def go(scenario, is_busy=lambda: False):
        async def main():
            loop = asyncio.get_running_loop()
            accepted: list[socket.socket] = []
            sock = sockets.listen(Endpoint("127.0.0.1", 0))
            reactor = Reactor(loop)
            listener = Listener(loop, reactor, sock, lambda connection, _: accepted.append(connection), 0.05, is_busy)
            try:
                await scenario(loop, listener, sock.getsockname()[1], accepted)
            finally:
                listener.close()
                reactor.close()
                for connection in accepted:
                    connection.close()

        run(main())

    return go


def test_every_connection_is_accepted_non_blocking(listening):
    async def scenario(loop, listener, port, accepted):
        listener.start()
        assert listener.address == Endpoint("127.0.0.1", port)
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        while len(accepted) < 200:
            await asyncio.sleep(0.01)
        assert not any(connection.getblocking() for connection in accepted)
        for client in clients:
            client.close()

    listening(scenario)


def test_where_there_is_too_much_to_do_for_those_who_came_few_are_accepted_in_a_turn(listening):
    async def scenario(loop, listener, port, accepted):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        listener.start()
        seen = [0]
        while len(accepted) < 20:
            await asyncio.sleep(0)
            seen.append(len(accepted))
        assert max(later - earlier for earlier, later in itertools.pairwise(seen)) == 2
        for client in clients:
            client.close()

    listening(scenario, is_busy=lambda: True)


def test_who_waits_in_the_queue_at_the_end_is_accepted_still(listening):
    async def scenario(loop, listener, port, accepted):
        listener.start()
        with socket.create_connection(("127.0.0.1", port)):
            listener.close()
            assert len(accepted) == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        listener.close()

    listening(scenario)


def test_an_error_of_the_machine_pauses_and_is_said_once(listening, monkeypatch, caplog):
    async def scenario(loop, listener, port, accepted):
        class Exhausted:
            """The socket, while accept() finds no descriptor."""

            attempts = 0

            def __init__(self, sock):
                self.fileno, self.close = sock.fileno, sock.close

            def accept(self):
                Exhausted.attempts += 1
                raise OSError(24, "Too many open files")

        real = listener._sock
        listener._sock = Exhausted(real)
        listener.start()
        with socket.create_connection(("127.0.0.1", port)):
            await asyncio.sleep(0.3)
            assert 2 <= Exhausted.attempts <= 7
            listener._sock = real
            await asyncio.sleep(0.1)
            assert len(accepted) == 1

    listening(scenario)
    assert caplog.text.count("cannot accept connections: Too many open files") == 1


def test_who_dialled_is_told_with_the_connection(run):
    async def main():
        reactor, told = Reactor(asyncio.get_running_loop()), []
        sock = sockets.listen(Endpoint("127.0.0.1", 0))
        listener = Listener(asyncio.get_running_loop(), reactor, sock, lambda *both: told.append(both), 0.05)
        listener.start()
        with socket.create_connection(("127.0.0.1", sock.getsockname()[1])) as client:
            while not told:
                await asyncio.sleep(0.005)
            ((accepted, source),) = told
            assert source == sockets.own_name(client) == sockets.peer_name(accepted)
            accepted.close()
        listener.close()
        reactor.close()

    run(main())


def test_what_ends_and_what_begins_in_one_turn_is_in_one_turn_of_the_reactor(run, tcp_pair):
    """So that a tunnel says both in one record."""

    async def main():
        reactor, turns = Reactor(asyncio.get_running_loop()), []

        class Ends:
            done: list[str] = []  # noqa: RUF012

            def on_ready(self, fd, mask):
                self.note("ended")
                reactor.unregister(fd)

            def note(self, what):
                if not self.done:
                    reactor.at_end_of_turn(self)
                self.done.append(what)

            def on_turn_end(self):
                turns.append(sorted(self.done))
                self.done.clear()

            def on_crash(self, error):
                pytest.fail(repr(error))

        ends, accepted = Ends(), []
        sock = sockets.listen(Endpoint("127.0.0.1", 0))

        def on_accept(connection, _):
            accepted.append(connection)
            ends.note("began")

        listener = Listener(asyncio.get_running_loop(), reactor, sock, on_accept, 0.05)
        here, there = tcp_pair()
        there.close()
        with socket.create_connection(("127.0.0.1", sock.getsockname()[1])):
            reactor.register(here.fileno(), select.EPOLLIN, ends)
            listener.start()
            while not turns:
                await asyncio.sleep(0)
        assert turns == [["began", "ended"]]
        listener.close()
        reactor.close()
        for connection in accepted:
            connection.close()

    run(main())


def test_a_bug_in_what_one_connection_begins_with_leaves_the_listener_listening(run, caplog):
    async def main():
        reactor, accepted = Reactor(asyncio.get_running_loop()), []
        sock = sockets.listen(Endpoint("127.0.0.1", 0))

        def on_accept(connection, _):
            accepted.append(connection)
            if len(accepted) == 1:
                raise ZeroDivisionError

        listener = Listener(asyncio.get_running_loop(), reactor, sock, on_accept, 0.05)
        listener.start()
        clients = [socket.create_connection(("127.0.0.1", sock.getsockname()[1])) for _ in range(3)]
        while len(accepted) < 3:
            await asyncio.sleep(0.005)
        listener.close()
        reactor.close()
        for connection in (*clients, *accepted):
            connection.close()

    run(main())
    assert "please report it" in caplog.text
