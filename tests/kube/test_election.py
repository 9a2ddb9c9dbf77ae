"""Leader election over an API server, among tasks and among processes that are killed, frozen or asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kube import election as election_module
from kube.election import Election, steady
from kube.lease import DEADLINE, DURATION
from tests.kube.places import Where
from tests.kube.rig import Place, beside, run, until, utc_now

LEASE_NAME = "qbitel-test"
CANDIDATE = Path(__file__).parent / "candidate.py"


class Clock:
    """A steady clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates ask often; how long a claim holds is not shortened."""
    monkeypatch.setattr(election_module, "RETRY", 0.02)


def candidate(place: Place, name: str, clock: Any = steady) -> Election:
    return Election(place.cluster, place.namespace, LEASE_NAME, name, now=utc_now, clock=clock)


async def lease_of(place: Place) -> Any:
    return await place.cluster.get(f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases/{LEASE_NAME}")


def test_one_of_two_leads_and_lets_go_at_its_end_so_that_the_other_begins_at_once(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            one, two = candidate(place, "pod-one"), candidate(place, "pod-two")
            async with beside(one.run()) as (first,):
                await until(one.is_leader)
                async with beside(two.run()):
                    spec = (await lease_of(place))["spec"]
                    assert spec["holderIdentity"].startswith("pod-one_")
                    assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (15, 1)
                    begun = spec["renewTime"]
                    while (await lease_of(place))["spec"]["renewTime"] == begun:
                        await asyncio.sleep(0.01)
                    assert not two.is_leader()
                    started = steady()
                    first.cancel()
                    await until(two.is_leader)
                    assert not one.is_leader()
                    assert steady() - started < DURATION  # or it only waited for the end
                    spec = (await lease_of(place))["spec"]
                    assert spec["holderIdentity"].startswith("pod-two_")
                    assert spec["leaseTransitions"] == 2

    run(main())


def test_a_leader_that_cannot_renew_stops_by_its_own_clock_before_another_can_begin(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            one_s, two_s = Clock(), Clock()
            one, two = candidate(place, "one", one_s), candidate(place, "two", two_s)
            async with beside(one.run(), two.run()):
                await until(lambda: one.is_leader() or two.is_leader())
                leader, clock = (one, one_s) if one.is_leader() else (two, two_s)
                place.stand_in.hold = asyncio.Event()  # nothing is answered
                await asyncio.sleep(0)
                clock.time += DEADLINE - 0.5
                assert leader.is_leader()
                clock.time += 1.0
                assert not leader.is_leader()
                place.stand_in.hold.set()
                place.stand_in.hold = None
                # Its own record stands: it goes on when the server is back.
                await until(leader.is_leader)

    run(main())


def test_one_that_was_frozen_does_not_lead_when_it_wakes_up_after_another_took_over(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            one_s, two_s = Clock(), Clock()
            one, two = candidate(place, "one", one_s), candidate(place, "two", two_s)
            frozen = asyncio.create_task(one.run())
            await until(one.is_leader)
            async with beside(two.run()):
                # A task cannot be frozen; one whose requests find no server comes near. Its clock goes on.
                place_of_one, one._cluster = one._cluster, _Nowhere()  # type: ignore[assignment]
                reads = len(place.stand_in.requests)
                await until(lambda: len(place.stand_in.requests) > reads + 2)
                one_s.time += DURATION - 0.1
                two_s.time += DURATION - 0.1
                assert not one.is_leader()
                reads = len(place.stand_in.requests)
                await until(lambda: len(place.stand_in.requests) > reads + 2)
                assert not two.is_leader()
                two_s.time += 1.0
                await until(two.is_leader)
                one._cluster = place_of_one
                reads = len(place.stand_in.requests)
                await until(lambda: len(place.stand_in.requests) > reads + 10)
                assert not one.is_leader()
                frozen.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await frozen
                assert two.is_leader()  # whoever does not lead gives nothing away

    run(main())


class _Nowhere:
    async def replace(self, *_arguments: object, **_options: object) -> None:
        from kube.client import ApiUnavailable

        raise ApiUnavailable("nothing is there")

    get = create = replace


def test_a_deleted_lease_is_made_again_and_a_server_that_fails_is_no_end(
    fake: Where, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with fake() as place:
            place.stand_in.faults = [403, 500, "lose the answer"]
            one = candidate(place, "one")
            async with beside(one.run()):
                await until(one.is_leader)
                place.stand_in.remove("leases", place.namespace, LEASE_NAME)
                await until(lambda: ("leases", place.namespace, LEASE_NAME) in place.stand_in.objects)
                assert one.is_leader()

    run(main())
    assert caplog.text.count("nobody can be elected: as the test wants it") == 1
    assert caplog.text.count("the election goes on") == 1
    assert "one_" in caplog.text
    assert "leads no longer" in caplog.text


def test_the_steady_clock_counts_the_time_that_the_machine_slept() -> None:
    assert steady() >= time.monotonic() - 1


# Processes, on a real API server


async def started(place: Place, name: str) -> tuple[asyncio.subprocess.Process, list[tuple[float, str]]]:
    """A candidate of its own process; what it prints is collected with the time."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CANDIDATE), place.kubeconfig, place.namespace, name),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    said: list[tuple[float, str]] = []

    async def listen() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            moment, _, word = line.decode().strip().partition(" ")
            said.append((float(moment), word))

    process.listening = asyncio.create_task(listen())  # type: ignore[attr-defined]
    return process, said


async def ended(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
    await process.wait()
    await process.listening  # type: ignore[attr-defined]


def leading(said: list[tuple[float, str]]) -> bool:
    return bool(said) and said[-1][1] == "leads"


def test_a_leader_that_is_killed_is_replaced_and_one_that_was_frozen_does_not_act_as_leader(real: Where) -> None:
    async def main() -> None:
        async with real() as place:
            processes: dict[str, Any] = {}
            try:
                for name in ("one", "two", "three"):
                    processes[name] = await started(place, name)
                await until(lambda: any(leading(said) for _, said in processes.values()))
                first = next(name for name, (_, said) in processes.items() if leading(said))
                killed = steady()
                processes[first][0].kill()
                rest = {name: processes[name] for name in processes if name != first}
                await until(lambda: any(leading(said) for _, said in rest.values()))
                second = next(name for name, (_, said) in rest.items() if leading(said))
                taken_over = rest[second][1][-1][0]
                # Its last renewal was up to RETRY before it was killed; somebody must have waited for its end.
                assert taken_over - killed > DURATION - DEADLINE

                frozen_at = steady()
                rest[second][0].send_signal(signal.SIGSTOP)
                (third,) = set(rest) - {second}
                await until(lambda: leading(rest[third][1]))
                rest[second][0].send_signal(signal.SIGCONT)
                # It says so itself, first of all, and does not claim it again while the third leads.
                await until(lambda: rest[second][1][-1][1] == "follows")
                woken = [word for moment, word in rest[second][1] if moment > frozen_at + DEADLINE]
                assert "leads" not in woken
                # Asked to end, a leader lets go, and the other does not wait for the end of the Lease.
                asked = steady()
                await ended(rest[third][0], signal.SIGTERM)
                await until(lambda: leading(rest[second][1]))
                assert rest[second][1][-1][0] - asked < DURATION
            finally:
                for process, _ in processes.values():
                    await ended(process, signal.SIGKILL)

    run(main(), patience=240)
