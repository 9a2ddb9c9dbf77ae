"""Peers that vanish without a word, and come back: the cable is pulled, or packets are dropped."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import socket

import pytest

from cli.demo.network import Namespace, make_pair
from tests.survival.mesh import MIB, variants
from tests.survival.namespaces import command, inside
from tests.survival.traffic import dialled, echo, end_of, listening, received, round_trip, serving_on, until

SILENCE = 1  # seconds: what a tunnel may say nothing for, before it is asked
STALL = 3  # seconds: what a connection with bytes under way may rest for
# Twice the silence, a sweep of five seconds before each step, and a slow machine.
SOON = 45.0


@dataclasses.dataclass(frozen=True)
class Pods:
    """The dialling pod, whose namespace the test is in, and the accepting one."""

    near: Namespace
    far: Namespace
    outbound: object
    inbound: object


def _cut_cable() -> None:
    command("ip", "link", "set", "eth0", "down")


def _mend_cable() -> None:
    command("ip", "link", "set", "eth0", "up")


def _drop_packets() -> None:
    for chain in ("INPUT", "OUTPUT"):
        command("iptables", "-w", "-I", chain, "!", "-i" if chain == "INPUT" else "-o", "lo", "-j", "DROP")


def _let_packets_through() -> None:
    for chain in ("INPUT", "OUTPUT"):
        command("iptables", "-w", "-F", chain)


HOW = pytest.mark.parametrize(
    ("vanish", "come_back"),
    variants((_cut_cable, _mend_cable), (_drop_packets, _let_packets_through)),
    ids=variants("cable", "packets"),
)


@pytest.fixture
def in_pods(qbitel, pki, run, needs_root):
    """Run a scenario in the near pod; it gets the Pods and the application's listening socket in the far one."""
    if shutil.which("iptables") is None:
        pytest.skip("needs iptables: it drops packets")

    def go(scenario, *words: str, patience: float = 180) -> None:
        with contextlib.ExitStack() as stack:
            near, far = make_pair(stack)
            common = (
                "proxy", "--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
                "--tunnel-silence", SILENCE, "--stall-timeout", STALL, *words,
            )  # fmt: skip
            listener = stack.enter_context(inside(far, listening))
            target = listener.getsockname()[1]
            inbound = inside(
                far, lambda: qbitel(*common, "--certs", pki.base / "api",
                                    "--explicit-inbound", f"{far.address}:9443=127.0.0.1:{target}")
            )  # fmt: skip
            outbound = inside(
                near, lambda: qbitel(*common, "--certs", pki.base / "web",
                                     "--explicit-outbound", f"127.0.0.1:9000={far.address}:9443")
            )  # fmt: skip
            inside(near, lambda: run(scenario(Pods(near, far, outbound, inbound), listener), patience))

    return go


@HOW
def test_a_short_outage_is_not_even_noticed(in_pods, amount, saw, vanish, come_back):
    seconds = amount(4, short=1)

    async def scenario(pods: Pods, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with serving_on(listener, echo), dialled(9000) as idle, dialled(9000) as busy:
            await round_trip(idle, b"before")
            await round_trip(busy, b"before")
            await asyncio.to_thread(vanish)
            message = bytes(100_000)
            await loop.sock_sendall(busy, message)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(come_back)
            began = loop.time()
            async with asyncio.timeout(SOON):
                await received(busy, len(message))
                await round_trip(idle, b"after")
            saw(f"{loop.time() - began:.1f} s after {seconds} s of silence, both go on")

    # The tunnel is asked after so long, and given up after twice as long: this outage is shorter.
    in_pods(scenario, "--tunnel-silence", "15", "--stall-timeout", "60")


@HOW
@pytest.mark.parametrize("words", variants((), ("--no-tunnels",)), ids=variants("tunnels", "single"))
def test_a_peer_that_is_gone_for_good_is_a_reset_for_both_applications_and_when_it_is_back_so_is_the_service(  # noqa: PLR0915
    in_pods, saw, vanish, come_back, words
):
    async def scenario(pods: Pods, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        far: dict[bytes, asyncio.Future[str]] = {}

        async def application(sock: socket.socket) -> None:
            name = await received(sock, 4)
            await loop.sock_sendall(sock, b"here")
            if name == b"echo":
                await echo(sock)
                return
            far[name] = loop.create_future()
            try:
                while name == b"answ":
                    await loop.sock_sendall(sock, bytes(7000))
                    await asyncio.sleep(0.01)
                far[name].set_result(await end_of(sock))
            except ConnectionError:
                far[name].set_result("reset")

        async def through() -> None:
            async with dialled(9000) as sock, asyncio.timeout(SOON):
                await loop.sock_sendall(sock, b"echo")
                await received(sock, 4)
                await round_trip(sock, b"there again")

        async with serving_on(listener, application), contextlib.AsyncExitStack() as stack:
            near = {}
            # Sending, receiving, resting, and so much that it moves out of the tunnel.
            for name in (b"asks", b"answ", b"rest", b"bulk"):
                near[name] = await stack.enter_async_context(dialled(9000))
                await loop.sock_sendall(near[name], name)
                assert await received(near[name], 4) == b"here"

            told: set[bytes] = set()  # the kernel says once that a connection was reset: to the one who sends

            async def ask(name: bytes, size: int) -> None:
                try:
                    while True:
                        await loop.sock_sendall(near[name], bytes(size))
                        await asyncio.sleep(0.01)
                except ConnectionError:
                    told.add(name)

            asking = [asyncio.ensure_future(ask(b"asks", 500)), asyncio.ensure_future(ask(b"bulk", MIB))]
            if not words:
                # The tunnel and the connection that the bulk has moved to.
                await until(lambda: len(pods.outbound.lines("handshake")) == 2)
            await asyncio.to_thread(vanish)
            began = loop.time()
            for name, sock in near.items():
                async with asyncio.timeout(SOON):
                    end = await end_of(sock)
                    assert end == "reset" or name in told, name
            seen = loop.time() - began
            for name in (b"asks", b"answ", b"rest"):
                async with asyncio.timeout(SOON):
                    assert await far[name] == "reset", name
            saw(f"near, they were reset after {seen:.1f} s, far after {loop.time() - began:.1f} s")
            await asyncio.gather(*asking)
            await asyncio.to_thread(come_back)
            for _ in range(3):
                with contextlib.suppress(ConnectionError):  # the first may still meet what is left of the outage
                    await through()
            await through()

    in_pods(scenario, *words)
