from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest

from cli.demo.forward import Door
from cli.demo.network import make_namespace, make_pair
from cli.demo.processes import Child, Place, module


def open_door(stack: ExitStack, place: Place, host: str, port: int) -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        door = Door(listener.fileno(), host, port)
        command = place.wrap([*module("forward"), str(door)])
        child = Child("a door", command, pass_fds=[listener.fileno()], ends_with_input=True)
        stack.callback(child.stop)
        child.expect("ready", 10)
        return int(listener.getsockname()[1])


def test_a_door_is_written_and_read_the_same() -> None:
    assert Door.parse("5=10.250.0.2:8080") == Door(5, "10.250.0.2", 8080)
    assert Door.parse(str(Door(7, "fd00::1", 1))) == Door(7, "fd00::1", 1)


def test_a_connection_comes_out_where_the_door_leads() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = open_door(stack, Place(), "127.0.0.1", server.getsockname()[1])
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        accepted = stack.enter_context(server.accept()[0])
        client.sendall(b"in")
        client.shutdown(socket.SHUT_WR)
        assert (accepted.recv(10), accepted.recv(10)) == (b"in", b"")
        accepted.sendall(b"out")
        assert client.recv(10) == b"out"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_a_door_of_the_machine_leads_into_a_pod() -> None:
    with ExitStack() as stack:
        first, second = make_pair(stack)
        server = stack.enter_context(second.run(lambda: socket.create_server((second.address, 0))))
        port = open_door(stack, Place(network=first.path, user=(65534, 65534)), second.address, server.getsockname()[1])
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        accepted, peer = server.accept()
        stack.enter_context(accepted)
        assert peer[0] == first.address
        accepted.sendall(b"server first")
        assert client.recv(100) == b"server first"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_a_door_to_nowhere_resets() -> None:
    with ExitStack() as stack:
        pod = make_namespace("", stack)
        port = open_door(stack, Place(network=pod.path), "127.0.0.1", 9)
        with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", port), 5) as client:
            client.recv(1)
