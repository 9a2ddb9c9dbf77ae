"""Sockets that listen, connect, reset and close as they should, with one line where they cannot."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from mesh.errors import UserError
from proxy import sockets
from proxy.config import Endpoint
from proxy.reactor import Reactor
from proxy.sockets import ConnectFailed
from proxy.waits import Waits

HERE = Endpoint("127.0.0.1", 0)


def refused(endpoint: Endpoint) -> str:
    with pytest.raises(UserError) as caught:
        sockets.listen(endpoint)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_accepted_connection_inherits_what_a_proxied_one_needs():
    with sockets.listen(HERE) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 300


def test_a_port_in_use_is_one_line_with_what_to_do():
    with sockets.listen(HERE) as taken:
        port = taken.getsockname()[1]
        assert refused(Endpoint("127.0.0.1", port)).startswith(f"port {port} on 127.0.0.1 is in use; end the program")


def test_an_address_of_another_machine_is_one_line():
    assert "192.0.2.1 is no address of this machine" in refused(Endpoint("192.0.2.1", 0))


def test_a_name_that_does_not_exist_is_one_line():
    assert "is no address of this machine" in refused(Endpoint("no-such-host.invalid", 0))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its privilege up")
def test_no_permission_is_one_line_with_what_to_do():
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(2102)
            text = refused(Endpoint("127.0.0.1", 81))
            os._exit(0 if "no permission to listen on 127.0.0.1:81" in text else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(pid, 0)
    # Where net.ipv4.ip_unprivileged_port_start is 0, anybody may have port 81.
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:  # noqa: PTH123
        assert os.waitstatus_to_exitcode(status) == (0 if int(file.read()) > 81 else 2)


def test_ipv6_and_ipv4_share_a_port_number():
    if not sockets.ipv6_available():
        pytest.skip("no IPv6 here")
    with sockets.listen(Endpoint("::", 0)) as six:
        sockets.listen(Endpoint("0.0.0.0", six.getsockname()[1])).close()  # noqa: S104


def waits_here() -> Waits:
    loop = asyncio.get_running_loop()
    return Waits(loop, Reactor(loop))


def connected(run, *args, **options):
    async def main():
        return await sockets.connect(waits_here(), *args, **options)

    return run(main())


def test_it_connects_by_address_by_name_and_from_a_source(run):
    with sockets.listen(HERE) as listener:
        port = listener.getsockname()[1]
        for host, source in (("127.0.0.1", None), ("localhost", None), ("127.0.0.1", "127.0.0.6")):
            with connected(run, Endpoint(host, port), 5, source=source) as sock:
                assert sock.getpeername() == ("127.0.0.1", port)
                assert source is None or sock.getsockname()[0] == source
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_ipv6_connects_from_a_source_too(run):
    if not sockets.ipv6_available():
        pytest.skip("no IPv6 here")
    with sockets.listen(Endpoint("::1", 0)) as listener:
        port = listener.getsockname()[1]
        with connected(run, Endpoint("::1", port), 5, source="::1") as sock:
            assert sock.getsockname()[0] == "::1"


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        (Endpoint("no-such-host.invalid", 80), None, "cannot resolve 'no-such-host.invalid'"),
        (Endpoint("127.0.0.1", 1), None, "connection refused; is the program there up"),
        (Endpoint("127.0.0.1", 1), "192.0.2.1", "the source address 192.0.2.1 is not on this machine"),
        (Endpoint("a" * 70 + ".example", 80), None, "cannot resolve"),
    ],
)
def test_a_failure_to_connect_says_why(run, target, source, expected):
    with pytest.raises(ConnectFailed, match=expected):
        connected(run, target, 5, source=source)


@pytest.fixture
def silent():
    """The address of a listener whose queue for one connection is full: the kernel drops further SYNs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        time.sleep(0.05)
        yield listener.getsockname()
        for filler in fillers:
            filler.close()


def test_a_target_that_does_not_answer_is_given_up_in_time(run, silent):
    began = time.monotonic()
    with pytest.raises(ConnectFailed, match=r"did not answer within 0\.3 s") as caught:
        connected(run, Endpoint(*silent), 0.3)
    assert caught.value.timed_out
    assert time.monotonic() - began < 2


def test_an_address_that_swallows_packets_does_not_keep_the_next_from_its_turn(run, silent, monkeypatch):
    with sockets.listen(HERE) as listener:

        async def two_addresses(_loop, _target):
            return [(socket.AF_INET, silent), (socket.AF_INET, listener.getsockname())]

        monkeypatch.setattr(sockets, "_resolve", two_addresses)
        with connected(run, Endpoint("two.example", 1), 1.0) as sock:
            assert sock.getpeername() == listener.getsockname()


def test_an_alert_arrives_although_the_peer_had_sent_more_than_was_read(run, tcp_pair):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tcp_pair()
        await loop.sock_sendall(theirs, bytes(100_000))
        await loop.sock_sendall(ours, b"alert")
        closing = asyncio.ensure_future(sockets.close_after_alert(waits_here(), ours, 5))
        await asyncio.sleep(0.05)
        assert await loop.sock_recv(theirs, 100) == b"alert"
        assert await loop.sock_recv(theirs, 100) == b""
        theirs.close()
        await closing
        assert ours.fileno() < 0

    run(main())


def test_a_peer_that_keeps_sending_is_not_read_for_ever(run, tcp_pair):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tcp_pair()

        async def flood():
            while True:
                await loop.sock_sendall(theirs, bytes(65536))

        flooding = asyncio.ensure_future(flood())
        await asyncio.wait_for(sockets.close_after_alert(waits_here(), ours, 60), 5)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await flooding

    run(main())


def test_that_nobody_listens_is_told_from_other_failures(run):
    async def main():
        waits = waits_here()
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectFailed) as refused:
                await sockets.connect(waits, Endpoint(*bound.getsockname()), 5)
        with pytest.raises(ConnectFailed) as unroutable:
            await sockets.connect(waits, Endpoint("255.255.255.255", 9), 5)
        return refused.value.refused, unroutable.value.refused

    assert run(main()) == (True, False)


# Two ends of a connection, of which the network takes away the other; run in a network namespace of its own.
VANISHING = """
import socket, subprocess, sys, time
from proxy import sockets

def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        sockets.prepare(ours)
        return ours, listener.accept()[0]

def cut():
    subprocess.run(["iptables", "-I", "INPUT", "-p", "tcp", "-j", "DROP"], check=True)

what = sys.argv[1]
ours, theirs = pair()
if what == "hung":  # its program reads nothing: the window closes
    try:
        while True:
            ours.send(bytes(65536))
    except BlockingIOError:
        pass
    sockets.give_up_after(ours, 60)
    sockets.ask_for_life(ours, 1)
    time.sleep(4)
    print(sockets.has_vanished(ours, 2))
    sys.exit()
sockets.give_up_after(ours, 60)
sockets.ask_for_life(ours, 1)
time.sleep(4)
print(sockets.has_vanished(ours, 2))  # silent, and alive
cut()
if what == "sending":
    ours.send(b"x")
ends = time.monotonic() + 60
while not sockets.has_vanished(ours, 2) and time.monotonic() < ends:
    time.sleep(0.1)
print(sockets.has_vanished(ours, 2))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
@pytest.mark.parametrize(("what", "seen"), [("resting", "False True"), ("sending", "False True"), ("hung", "False")])
def test_a_machine_that_vanished_is_told_from_one_that_is_silent_and_from_a_program_that_does_not_read(what, seen):
    program = ["sh", "-c", 'ip link set lo up && exec "$0" -c "$1" "$2"', sys.executable, VANISHING, what]
    done = subprocess.run(["unshare", "--net", *program], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == seen.split()


@pytest.mark.parametrize(("host", "source"), [("127.0.0.1", None), ("127.0.0.1", "127.0.0.6"), ("127.9.9.9", None)])
def test_a_connection_to_the_application_beside_us_is_quick_and_not_kept_alive(host, source):
    with (
        socket.create_server((host, 0)) as server,
        sockets.start_connecting(Endpoint(host, server.getsockname()[1]), source) as sock,
    ):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not sock.getblocking()


def test_a_connection_to_what_may_be_another_machine_is_kept_alive():
    anywhere = "0.0.0.0"  # noqa: S104  # it is gone in a moment; dialled, it is this machine, but does not say so
    with (
        socket.create_server((anywhere, 0)) as server,
        sockets.start_connecting(Endpoint(anywhere, server.getsockname()[1]), None) as sock,
    ):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
