"""Accepting many, and closing without losing who waits. (Exhaustion is tested with a real process in test_server.)"""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest

from proxy import sockets
from proxy.config import Endpoint
from proxy.listener import Listener


@pytest.fixture
def listening(run):
    """Run a scenario(loop, listener, port, accepted list)."""

    def go(scenario, is_busy=lambda: False):
        async def main():
            loop = asyncio.get_running_loop()
            accepted: list[socket.socket] = []
            sock = sockets.listen(Endpoint("127.0.0.1", 0))
            listener = Listener(loop, sock, accepted.append, 0.05, is_busy)
            try:
                await scenario(loop, listener, sock.getsockname()[1], accepted)
            finally:
                listener.close()
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
