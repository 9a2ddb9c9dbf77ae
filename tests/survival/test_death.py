"""A sidecar is killed, or is told to end: applications see a reset and never a hang, or nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket

import pytest

from cli.demo.network import make_namespace
from proxy.tunnels.pool import STREAMS_EACH
from tests.survival.mesh import MIB, processes_of, variants, wait_until
from tests.survival.namespaces import command, inside
from tests.survival.traffic import dialled, echo, end_of, received, round_trip, serving, under_load

# For a reset to be seen, on a machine whose two cores others use too. Nothing but the kernel is asked for it.
SOON = 20.0


@pytest.mark.parametrize("victim", ["outbound", "inbound"])
@pytest.mark.parametrize(
    "words",
    variants((), ("--no-tunnels",), ("--workers", "2")),
    ids=variants("tunnels", "single", "workers"),
)
def test_a_sidecar_that_is_killed_is_a_reset_for_both_applications(mesh, run, amount, saw, words, victim):
    """On connections that rest and on busy ones, in a tunnel, and where bulk has moved to a connection of its own."""
    for _ in range(amount(5, short=1)):
        _kill(mesh, run, saw, words, victim)


def _kill(mesh, run, saw, words, victim) -> None:  # noqa: PLR0915  # one story, told from its beginning to its end
    async def main() -> None:  # noqa: PLR0915
        loop = asyncio.get_running_loop()
        far: dict[bytes, socket.socket] = {}
        done = asyncio.Event()

        async def application(sock: socket.socket) -> None:
            """Rest, or send for ever; what comes is read by the test."""
            name = await received(sock, 4)
            far[name] = sock
            await loop.sock_sendall(sock, b"here")
            await done.wait()

        async with serving(application) as target, contextlib.AsyncExitStack() as stack:
            sidecars = await asyncio.to_thread(mesh, target, *words)
            near: dict[bytes, socket.socket] = {}
            for name in (b"idle", b"busy", b"bulk", b"rest"):
                near[name] = await stack.enter_async_context(dialled(sidecars.port))
                await loop.sock_sendall(near[name], name)
                assert await received(near[name], 4) == b"here"
            block = bytes(MIB)
            moved = asyncio.Event()

            told: set[bytes] = set()  # the kernel says once that a connection was reset: to the one who sends

            async def pour(name: bytes, most: int | None) -> None:
                """Send `most` bytes or for ever."""
                sent = 0
                try:
                    while most is None or sent < most:
                        await loop.sock_sendall(near[name], block if name != b"busy" else block[:7000])
                        sent += len(block)
                except ConnectionError:
                    told.add(name)

            async def drain(name: bytes) -> str:
                taken = 0
                try:
                    while data := await loop.sock_recv(far[name], MIB):
                        taken += len(data)
                        if name == b"bulk" and taken > 16 * MIB:
                            moved.set()
                except ConnectionError:
                    return "reset"
                return "fin"

            pouring = [asyncio.ensure_future(pour(name, None)) for name in (b"busy", b"bulk")]
            pouring.append(asyncio.ensure_future(pour(b"rest", 12 * MIB)))
            ends = {name: asyncio.ensure_future(drain(name)) for name in near}
            async with asyncio.timeout(60):
                await moved.wait()
                await pouring[2]  # it has moved, and rests since
            killed = loop.time()
            sidecars.sides[victim].process.kill()
            for name, sock in near.items():
                async with asyncio.timeout(SOON):
                    end = await end_of(sock)
                    assert end == "reset" or name in told, f"the dialling side of {name!r}"
                    assert await ends[name] == "reset", f"the accepting side of {name!r}"
            saw(f"every end saw its reset after {loop.time() - killed:.2f} s")
            async with asyncio.timeout(SOON):
                await asyncio.gather(*pouring)
            other = sidecars.sides["inbound" if victim == "outbound" else "outbound"]
            await asyncio.to_thread(other.wait_for, lambda: other.metric("qbitel_connections_open") == 0)
            assert other.metric("qbitel_tunnels_open") == 0
            assert "a bug" not in other.messages
            done.set()

    run(main(), 180)


def test_a_worker_that_is_killed_ends_the_sidecar_and_nobody_hangs(mesh, run):
    async def main() -> None:
        async with serving(echo) as target, contextlib.AsyncExitStack() as stack:
            sidecars = await asyncio.to_thread(mesh, target, "--workers", "2")
            near = [await stack.enter_async_context(dialled(sidecars.port)) for _ in range(2 * STREAMS_EACH)]
            for sock in near:
                await round_trip(sock, b"up")
            os.kill(processes_of(sidecars.inbound)[1], signal.SIGKILL)
            for sock in near:
                # The other worker's may end in order, within the drain's time.
                async with asyncio.timeout(30 + SOON):
                    with contextlib.suppress(OSError, AssertionError):
                        await round_trip(sock, b"perhaps")
                        sock.shutdown(socket.SHUT_WR)
                    await end_of(sock)
            code = await asyncio.to_thread(sidecars.inbound.process.wait, 60)
            assert code == 1
            assert "was killed by signal 9" in sidecars.inbound.messages

    run(main(), 180)


VIP = "10.96.0.10"  # as a Service's


def test_an_inbound_sidecar_that_is_replaced_under_load_fails_no_request(qbitel, pki, run, amount, saw, needs_root):
    """A Service's address leads to one of two sidecars; when the new one stands, the old one hears SIGTERM."""
    if shutil.which("iptables") is None:
        pytest.skip("needs iptables: it gives two sidecars one address")
    rounds = amount(20, short=1)

    def start(target: int):
        return qbitel(
            "proxy", "--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", "--certs",
            pki.base / "api", "--explicit-inbound", f"10.9.0.1:0=127.0.0.1:{target}", "--drain-quiet", "1",
        )  # fmt: skip

    def lead_to(port: int, *, instead_of: int | None) -> None:
        """New connections go to `port`; those that are open stay where they are (conntrack)."""
        rule = ["-d", VIP, "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination"]
        command("iptables", "-w", "-t", "nat", "-I", "OUTPUT", *rule, f"10.9.0.1:{port}")
        if instead_of is not None:
            command("iptables", "-w", "-t", "nat", "-D", "OUTPUT", *rule, f"10.9.0.1:{instead_of}")

    def everything() -> None:
        for address in ("127.0.0.1/8", "10.9.0.1/32", f"{VIP}/32"):
            command("ip", "address", "replace", address, "dev", "lo")
        command("ip", "link", "set", "lo", "up")
        run(main(), 60 + 60 * rounds)

    async def main() -> None:
        async with serving(echo) as target:
            current = await asyncio.to_thread(start, target)
            await asyncio.to_thread(lead_to, current.port("inbound"), instead_of=None)
            outbound = await asyncio.to_thread(
                qbitel, "proxy", "--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
                "--certs", pki.base / "web", "--explicit-outbound", f"127.0.0.1:0={VIP}:80",
            )  # fmt: skip
            async with under_load(outbound.port("outbound")) as load:
                for number in range(rounds):
                    await _until_more(load, 100)
                    new = await asyncio.to_thread(start, target)
                    await asyncio.to_thread(lead_to, new.port("inbound"), instead_of=current.port("inbound"))
                    await _until_more(load, 20)
                    current.process.send_signal(signal.SIGTERM)
                    code = await asyncio.to_thread(current.process.wait, 60)
                    assert code == 0, current.messages
                    assert "did not end in time" not in current.messages, current.messages
                    assert not load.failures, f"round {number}: {load.failures[:3]}\n{outbound.messages}"
                    current = new
                await _until_more(load, 100)
            saw(f"{load.done} requests while {rounds} sidecars were replaced, {len(load.failures)} failed")
            assert not load.failures
            assert "a bug" not in outbound.messages + current.messages

    with contextlib.ExitStack() as stack:
        inside(make_namespace("10.9.0.1", stack), everything)


async def _until_more(load, count: int) -> None:
    goal = load.done + count
    async with asyncio.timeout(60):
        while load.done < goal:
            await asyncio.sleep(0.01)


def test_an_outbound_sidecar_that_ends_lets_its_connections_finish(mesh, run, saw):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(echo) as target, contextlib.AsyncExitStack() as stack:
            sidecars = await asyncio.to_thread(mesh, target, "--drain-quiet", "1")
            near = [await stack.enter_async_context(dialled(sidecars.port)) for _ in range(40)]
            for sock in near:
                await round_trip(sock, b"before")
            sidecars.outbound.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(sidecars.outbound.wait_for, lambda: "draining: " in sidecars.outbound.messages)
            for sock in near:
                await round_trip(sock, bytes(100_000))
                sock.shutdown(socket.SHUT_WR)
                assert await loop.sock_recv(sock, 1) == b""
                sock.close()
            asked = loop.time()
            assert await asyncio.to_thread(sidecars.outbound.process.wait, 60) == 0
            saw(f"it ended {loop.time() - asked:.1f} s after its last connection")
            await asyncio.to_thread(wait_until, lambda: sidecars.inbound.metric("qbitel_tunnels_open") == 0, "a tunnel")

    run(main(), 120)
