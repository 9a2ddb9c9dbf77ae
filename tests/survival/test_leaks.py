"""What many connections leave behind: nothing; and what connections that do nothing cost."""

from __future__ import annotations

import asyncio
import contextlib
import resource

import pytest

from tests.survival.mesh import KIB, MIB, variants, wait_for_descriptors
from tests.survival.traffic import dialled, echo, make, round_trip, serving, until

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
                # Three more tunnels have come: a busy destination gets up to four.
                await asyncio.to_thread(wait_for_descriptors, sidecars.sides[name], old.descriptors + 3)
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
