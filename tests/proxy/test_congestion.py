"""Which connections are taken off a congestion control that paces, and that they are."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from proxy import congestion, sockets
from proxy.config import Endpoint
from proxy.reactor import Reactor
from proxy.side import Side
from proxy.waits import Waits


def _algorithm(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


@pytest.fixture
def usual() -> bytes:
    """What a socket of this host has, so that it can stand for one that paces."""
    with socket.socket() as fresh:
        return _algorithm(fresh)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.127", False), ("128.0.0.1", False),
     ("::2", False), ("fd00::1", False), ("0.0.0.0", False)],  # noqa: S104  # an address to look at
)  # fmt: skip
def test_the_addresses_that_only_this_machine_can_have(host, expected):
    assert congestion.is_loopback(host) is expected


def test_a_socket_that_paces_sends_what_it_is_given_from_then_on(usual):
    with socket.socket() as sock:
        congestion.unpace(sock, paced=(usual,))
        assert _algorithm(sock) == b"reno"


def test_any_other_choice_of_the_host_stands(usual):
    with socket.socket() as sock:
        congestion.unpace(sock, paced=(b"another",))
        assert _algorithm(sock) == usual


def test_what_is_dialled_on_this_machine_is_not_paced_and_moves_bytes(run, listener, monkeypatch, usual):
    monkeypatch.setattr(congestion.unpace, "__defaults__", ((usual,),))
    endpoint = Endpoint(*listener.getsockname())

    async def main():
        loop = asyncio.get_running_loop()
        waited = await sockets.connect(Waits(loop, Reactor(loop)), endpoint, 30)
        begun = sockets.start_connecting(endpoint, None)
        with contextlib.closing(waited), contextlib.closing(begun):
            assert _algorithm(waited) == _algorithm(begun) == b"reno"
            for sock in (waited, begun):
                await loop.sock_sendall(sock, b"x")
                far, _ = await loop.run_in_executor(None, listener.accept)
                with far:
                    assert far.recv(1) == b"x"

    run(main())


def test_before_bulk_a_side_on_the_loopback_is_not_paced_either(tcp_pair, monkeypatch, usual):
    monkeypatch.setattr(congestion.unpace, "__defaults__", ((usual,),))
    near, _far = tcp_pair()
    Side(near).unpace()
    assert _algorithm(near) == b"reno"
