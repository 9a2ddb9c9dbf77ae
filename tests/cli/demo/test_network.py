from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.demo import network
from cli.demo.errors import CannotIsolateError
from cli.demo.network import make_namespace, make_pair

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]


def test_two_pods_reach_each_other_and_nothing_else() -> None:
    with ExitStack() as stack:
        first, second = make_pair(stack)
        listener = stack.enter_context(second.run(lambda: socket.create_server((second.address, 0))))
        port = listener.getsockname()[1]
        client = stack.enter_context(first.run(lambda: socket.create_connection((second.address, port), 5)))
        served, peer = listener.accept()
        stack.enter_context(served)
        assert peer[0] == first.address
        assert client.getpeername()[0] == second.address
        with pytest.raises(OSError, match="unreachable"):
            first.run(lambda: socket.create_connection(("192.0.2.1", 80), 1))


def test_the_machines_own_network_does_not_change() -> None:
    before, inode = {name for _, name in socket.if_nameindex()}, Path("/proc/self/ns/net").readlink()
    with ExitStack() as stack:
        make_pair(stack)
        assert before == {name for _, name in socket.if_nameindex()}
        assert inode == Path("/proc/self/ns/net").readlink()


def test_a_namespace_is_gone_when_nobody_holds_it() -> None:
    with ExitStack() as stack:
        pod = make_namespace("10.0.0.1", stack)
        assert Path(pod.path).exists()
    assert not Path(pod.path).exists()


def test_a_namespace_can_be_entered_by_its_path() -> None:
    with ExitStack() as stack:
        first, _ = make_pair(stack)
        command = [sys.executable, "-P", "-m", "cli.demo.confine", "--network", str(first.path), "--"]
        script = "import socket; print([name for _, name in socket.if_nameindex()])"
        done = subprocess.run([*command, sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "['lo', 'eth0']"


def test_a_refusal_is_one_half_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(result: int, what: str) -> None:
        raise PermissionError(1, f"{what}: Operation not permitted")

    monkeypatch.setattr(network, "check", refuse)
    with ExitStack() as stack, pytest.raises(CannotIsolateError, match=r"cannot be made.*not permitted"):
        make_pair(stack)
