"""Steps towards what should be: taken while leading, again when they fail, and never in a hurry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from kube import reconciler as module
from kube.client import ApiRefused, ApiUnavailable
from kube.reconciler import Reconciler, Step
from mesh.errors import UserError
from tests.kube.rig import beside, run, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.0)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)


class World:
    """Numbers that should be in `done`, and what goes wrong on the way there."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.done: list[str] = []
        self.tried: list[str] = []
        self.errors: dict[str, list[Exception]] = {}
        self.leads = True
        self.goal = "one"
        self.time = 100.0
        self.after: Callable[[str], None] = lambda _about: None
        self.reconciler = Reconciler(self.plan, lambda: self.leads, clock=lambda: self.time, failures=(OSError,))

    async def plan(self) -> list[Step]:
        return [self.step(about) for about in self.wanted if about not in self.done]

    def step(self, about: str) -> Step:
        async def act() -> None:
            self.tried.append(about)
            if self.errors.get(about):
                raise self.errors[about].pop(0)
            self.done.append(about)
            self.after(about)

        return Step(about, "count it", act, self.goal)


def test_what_is_wanted_is_done_when_somebody_says_that_it_may_be_another() -> None:
    async def main() -> None:
        world = World()
        world.wanted = ["a", "b"]
        async with beside(world.reconciler.run()):
            world.reconciler.poke()
            await until(lambda: world.done == ["a", "b"])
            world.wanted.append("c")
            world.reconciler.poke()
            await until(lambda: world.done == ["a", "b", "c"])
        assert world.tried == ["a", "b", "c"]

    run(main())


def test_what_is_due_by_the_clock_alone_is_found_by_looking_now_and_then() -> None:
    async def main() -> None:
        world = World()
        async with beside(world.reconciler.run()):
            world.wanted = ["a"]
            world.time += 60
            await until(lambda: world.done == ["a"])

    run(main())


def test_nothing_is_done_without_leading_and_everything_as_soon_as_we_lead() -> None:
    async def main() -> None:
        world = World()
        world.leads = False
        world.wanted = ["a", "b", "c"]

        def lose_the_lead(about: str) -> None:
            world.leads = about != "b"

        world.after = lose_the_lead
        async with beside(world.reconciler.run()):
            world.reconciler.poke()
            for _ in range(50):
                await asyncio.sleep(0)
            assert world.tried == []
            world.leads = True
            await until(lambda: not world.leads)
            assert world.tried == ["a", "b"]
            world.leads = True
            await until(lambda: world.tried == ["a", "b", "c"])

    run(main())


@pytest.mark.parametrize(
    "error",
    [ApiUnavailable("away"), ApiRefused(409, "Conflict", "changed"), OSError("away"), UserError("no")],
)
def test_a_step_that_fails_is_tried_again_later_and_keeps_no_other_from_being_taken(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        world = World()
        world.wanted = ["bad", "good"]
        world.errors = {"bad": [error] * 3}
        async with beside(world.reconciler.run()):
            world.reconciler.poke()
            await until(lambda: world.done == ["good"])
            for _ in range(5):
                world.reconciler.poke()
                await asyncio.sleep(0)
            await until(lambda: not world.reconciler._poked.is_set())
            assert world.tried.count("bad") == 1  # not before its time
            while "bad" not in world.done:
                world.time += 61  # the longest wait
                await asyncio.sleep(0)
            assert world.tried.count("bad") == 4

    caplog.set_level(logging.INFO)
    run(main())
    assert caplog.text.count("bad: count it failed") == 1  # once for as long as it fails


def test_what_comes_in_between_is_decided_upon_before_the_rest_is_done() -> None:
    async def main() -> None:
        world = World()
        world.wanted = ["a", "b"]

        def change_of_mind(about: str) -> None:
            if about == "a":
                world.wanted = ["a", "c"]
                world.reconciler.poke()

        world.after = change_of_mind
        async with beside(world.reconciler.run()):
            world.reconciler.poke()
            await until(lambda: world.done == ["a", "c"])
        assert "b" not in world.tried

    run(main())


def test_a_bug_is_no_failure_to_be_tried_again() -> None:
    async def main() -> None:
        world = World()
        world.wanted = ["a"]
        world.errors = {"a": [KeyError("a bug")]}
        world.reconciler.poke()
        with pytest.raises(KeyError):
            await world.reconciler.run()

    run(main())


def test_who_is_woken_without_leading_waits_and_does_not_spin() -> None:
    looks = 0

    async def nothing() -> list[Step]:
        return []

    def nobody_leads() -> bool:
        nonlocal looks
        looks += 1
        assert looks < 100, "it asks again and again without a pause"
        return False

    async def main() -> None:
        reconciler = Reconciler(nothing, nobody_leads)
        reconciler.poke()
        async with beside(reconciler.run()):
            await until(lambda: looks >= 3)

    run(main())


def test_what_has_to_be_done_again_all_the_time_keeps_no_other_from_its_turn() -> None:
    async def main() -> None:
        world = World()
        world.wanted = ["a", "b", "c"]

        def undo(about: str) -> None:
            # Somebody edits it again before we can do anything else, and that wakes us.
            if about == "a":
                world.done.remove("a")
                world.reconciler.poke()

        world.after = undo
        async with beside(world.reconciler.run()):
            world.reconciler.poke()
            await until(lambda: {"b", "c"} <= set(world.done))
        assert world.tried[:3] == ["a", "b", "c"]

    run(main())


def test_who_undoes_the_same_thing_again_and_again_gets_fewer_and_fewer_writes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        world = World()
        world.wanted = ["a", "b"]

        def undo(about: str) -> None:
            if about == "a":
                world.done.remove("a")

        async def rounds(number: int) -> None:
            for _ in range(number):
                world.reconciler.poke()
                await until(lambda: not world.reconciler._poked.is_set())

        world.after = undo
        async with beside(world.reconciler.run()):
            await rounds(30)
            assert world.tried.count("a") == 10
            assert world.done == ["b"]
            for _ in range(10):  # ten minutes
                world.time += 61
                await rounds(5)
            assert 10 < world.tried.count("a") <= 20
            world.wanted = []
            world.time += 200  # a calm time
            await rounds(2)
            world.wanted = ["a"]
            await rounds(30)
            assert 20 <= world.tried.count("a") <= 30
            # What is published became another: that is no repetition, and is not kept waiting.
            world.tried.clear()
            for number in range(30):
                world.goal = f"number {number}"
                await rounds(2)
            assert world.tried.count("a") >= 30

    run(main())
    assert caplog.text.count("done 10 times in a row; who undoes it?") == 2


def test_whoever_wakes_us_all_the_time_does_not_get_all_the_time() -> None:
    async def main() -> None:
        world = World()
        world.wanted = ["a", "b", "c"]
        plans: list[float] = []
        plan = world.plan

        async def slow_plan() -> list[Step]:
            plans.append(world.time)
            world.time += 1.0  # of thousands of Secrets
            return await plan()

        def wake(_about: str) -> None:
            world.reconciler.poke()

        world.after = wake
        world.reconciler = Reconciler(slow_plan, lambda: True, clock=lambda: world.time)
        async with beside(world.reconciler.run()):
            world.reconciler.poke()
            await until(lambda: world.done == ["a", "b", "c"])
        assert len(plans) == 1

    run(main())
