"""What many connections leave behind: nothing; and what connections that do nothing cost."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import signal
import socket

import pytest

from tests.survival.mesh import KIB, MIB, Mesh, variants, wait_for_descriptors
from tests.survival.test_renewals import Told, refreshed, renew
from tests.survival.test_strangers import Stranger
from tests.survival.traffic import RESET_ON_CLOSE, dialled, echo, end_of, make, refused, round_trip, serving, until

KINDS = variants(
    pytest.param((), 100_000, 600, id="tunnels"),
    pytest.param(("--no-tunnels",), 15_000, 100, id="single"),
    pytest.param(("--workers", "2"), 30_000, 300, id="workers"),
)
# Allocators keep what they once had; counters get series. A connection that leaked its record alone would be 1 KB.
SLACK = 6 * MIB
EACH = 40  # bytes


@pytest.mark.parametrize(("words", "full", "short"), KINDS)
def test_short_connections_leave_nothing_behind(mesh, run, amount, saw, words, full, short):
    total = amount(full, short=short)

    async def main() -> None:
        async with serving(echo) as target:
            sidecars = await asyncio.to_thread(mesh, target, *words)
            await make(max(total // 10, 200), sidecars.port)  # what is allocated once, is
            await asyncio.to_thread(sidecars.settle)
            tunnels = await asyncio.to_thread(sidecars.tunnels)
            before = sidecars.usage()
            await make(total, sidecars.port)
            await asyncio.to_thread(sidecars.settle)
            more_tunnels = await asyncio.to_thread(sidecars.tunnels) - tunnels
            # A busy destination gets up to four tunnels in each process: their descriptors are no leak.
            assert more_tunnels <= 2 * 4 * 2
            for name, old in before.items():
                allowed = old.descriptors + max(more_tunnels, 0)
                await asyncio.to_thread(wait_for_descriptors, sidecars.sides[name], allowed)
                new = sidecars.usage()[name]
                grown = new.memory - old.memory
                saw(
                    f"{total} connections: {name} has {new.descriptors} descriptors ({old.descriptors} before) and "
                    f"{new.memory / MIB:.1f} MiB ({grown / KIB:+.0f} KiB, {grown / total:.1f} bytes each)"
                )
                assert grown <= SLACK + EACH * total
            sidecars.check_alive()

    run(main(), 900)


@pytest.mark.parametrize("words", variants((), ("--no-tunnels",)), ids=variants("tunnels", "single"))
def test_idle_connections_cost_little_and_work_when_they_are_used(mesh, run, amount, saw, many_descriptors, words):
    count = amount(5_000 if not words else 2_000, short=100)

    async def main() -> None:
        async with serving(echo) as target, contextlib.AsyncExitStack() as stack:
            sidecars = await asyncio.to_thread(mesh, target, *words)
            await make(50, sidecars.port)
            await asyncio.to_thread(sidecars.settle)
            before = sidecars.usage()
            near = []
            gate = asyncio.Semaphore(16)

            async def one() -> None:
                async with gate, asyncio.timeout(300):
                    near.append(await stack.enter_async_context(dialled(sidecars.port)))
                    await round_trip(near[-1], b"x" * 64)

            await asyncio.gather(*(one() for _ in range(count)))
            # A further tunnel counts as a connection until its handshake is done.
            await until(lambda: sidecars.open() == 2 * count)
            for name, new in sidecars.usage().items():
                each = (new.memory - before[name].memory) / count
                saw(f"{count} idle connections: {each / KIB:.1f} KiB each in the {name} sidecar")
                # A TLS connection of its own keeps keys, a certificate chain that is shared, and two sockets' objects.
                assert each <= (12 if not words else 60) * KIB or count < 1000
            for sock in near:
                async with asyncio.timeout(60):
                    await round_trip(sock, b"still there")
            for sock in near:
                sock.close()
            await asyncio.to_thread(sidecars.settle)
            for name, old in before.items():
                # A busy destination gets up to four tunnels, and there may have been none a moment ago.
                await asyncio.to_thread(wait_for_descriptors, sidecars.sides[name], old.descriptors + 4)
            sidecars.check_alive()

    run(main(), 900)


def test_a_sidecar_that_has_no_descriptors_left_goes_on_when_some_are_free_again(mesh, run, amount):
    count = amount(200, short=120)

    async def main() -> None:
        async with serving(echo) as target:
            sidecars = await asyncio.to_thread(lambda: mesh(target, preexec=_few_descriptors))
            async with contextlib.AsyncExitStack() as stack:
                held = [await stack.enter_async_context(dialled(sidecars.port))]
                async with asyncio.timeout(60):
                    await round_trip(held[0], b"the first has its place")
                held += [await stack.enter_async_context(dialled(sidecars.port)) for _ in range(count)]
                await until(
                    lambda: "cannot accept connections" in sidecars.outbound.messages + sidecars.inbound.messages
                )
                for sock in held[1:]:
                    sock.close()
                async with asyncio.timeout(60):
                    await round_trip(held[0], b"and keeps it")
            await asyncio.to_thread(sidecars.settle)
            # So few at once find room, whatever is left in the queues of what was dialled before.
            await make(50, sidecars.port, at_once=8)
            await asyncio.to_thread(sidecars.settle)
            assert all(side.process.poll() is None for side in sidecars.sides.values())

    run(main(), 120)


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


# A sidecar whose garbage collector never runs says at its end what that would have had to do.
_WITHOUT_A_COLLECTOR = """
import atexit, collections, gc, sys

def tell():
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    for kind, count in collections.Counter(map(type, gc.garbage)).items():
        print(f"garbage: {count} {kind.__module__}.{kind.__qualname__}", file=sys.stderr)

gc.disable()
atexit.register(tell)
"""
# What importing and reading the command line leave behind is none of these.
_OF_CONNECTIONS = re.compile(r"(proxy|pqtls|mesh|socket|_asyncio|asyncio)\..*|builtins\.(traceback|frame|coroutine)")


@pytest.mark.parametrize("words", [(), ("--no-tunnels",)], ids=["tunnels", "single"])
def test_whatever_ends_is_freed_at_once_and_does_not_wait_for_the_garbage_collector(
    mesh, run, qbitel, pki, folders, amount, saw, words
):
    # That collector counts objects, and runs in full when there are a quarter more of them. The keys of a connection or
    # a certificate are a few objects, and up to a hundred KB of OpenSSL's memory.
    rounds = amount(200, short=12)
    hello = Stranger(pki).hello()

    async def main() -> None:
        async with serving(_echo_or_reset) as target:
            sidecars = await asyncio.to_thread(lambda: mesh(target, *words, first=_WITHOUT_A_COLLECTOR))
            foreign = await asyncio.to_thread(
                qbitel, "proxy", "--no-capture", *words, "--certs", pki.base / "other_root",
                "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{sidecars.inbound.port('inbound')}",
                first=_WITHOUT_A_COLLECTOR,
            )  # fmt: skip
            told = {name: Told(side) for name, side in sidecars.sides.items()}
            for _ in range(rounds):
                await _all_kinds_of_ends(sidecars, foreign.port("outbound"), hello)
                for name, folder in (("outbound", "web"), ("inbound", "api")):
                    await refreshed(
                        sidecars.sides[name],
                        told[name],
                        "certificates reloaded",
                        lambda folder=folder: renew(pki, folders / folder),
                    )
            await asyncio.to_thread(sidecars.inbound.stop, signal.SIGTERM)
            for _ in range(rounds):
                assert await refused(sidecars.port)  # there is nobody to lead it to any more
            for side in (sidecars.outbound, foreign):
                await asyncio.to_thread(side.stop, signal.SIGTERM)
            for name, side in {**sidecars.sides, "foreign": foreign}.items():
                found = {kind: int(count) for count, kind in re.findall(r"garbage: (\d+) (\S+)", side.messages)}
                assert found, side.messages
                left = {kind: count for kind, count in found.items() if _OF_CONNECTIONS.fullmatch(kind)}
                saw(f"{rounds} rounds: {sum(left.values())} objects of ours are garbage at the end of {name}")
                # A program that ends leaves itself; nothing may be there that each round has added to.
                assert max(left.values(), default=0) < rounds, left

    run(main(), 900)


async def _echo_or_reset(sock: socket.socket) -> None:
    """An application that ends a connection by RST where it is told to."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, 65536):
        if data == b"reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            return
        await loop.sock_sendall(sock, data)


async def _all_kinds_of_ends(sidecars: Mesh, foreign: int, hello: bytes) -> None:
    """`foreign` is the port of a sidecar that the inbound one does not let in."""
    loop = asyncio.get_running_loop()
    async with dialled(sidecars.port) as sock:  # in order
        await round_trip(sock, b"x" * 100)
        sock.shutdown(socket.SHUT_WR)
        assert await end_of(sock) == "fin"
    async with dialled(sidecars.port) as sock:  # by the application that listens
        await loop.sock_sendall(sock, b"reset")
        assert await end_of(sock) == "reset"
    async with dialled(sidecars.port) as sock:  # by the one that dialled
        await round_trip(sock, b"x" * 100)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    assert await refused(foreign)  # by a certificate of another root
    inbound = sidecars.inbound.port("inbound")
    broken = bytearray(hello)
    broken[100:] = bytes(len(hello) - 100)
    for first in (hello[:100], hello, bytes(broken)):  # by strangers
        async with dialled(inbound) as sock:
            await loop.sock_sendall(sock, first)
            if first is not hello:
                sock.shutdown(socket.SHUT_WR)
                await end_of(sock)
