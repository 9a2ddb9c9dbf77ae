"""Steps towards what should be: taken while leading, again when they fail, and never in a hurry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from certmgr.kubernetes import reconciler as module
from certmgr.kubernetes.client import ApiRefused, ApiUnavailable
from certmgr.kubernetes.reconciler import Reconciler, Step
from certmgr.store import StoreUnavailable
from mesh.errors import UserError
from tests.certmgr.kubernetes.rig import beside, run, until


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
        self.time = 100.0
        self.after: Callable[[str], None] = lambda _about: None
        self.reconciler = Reconciler(self.plan, lambda: self.leads, clock=lambda: self.time)

    def plan(self) -> list[Step]:
        return [self.step(about) for about in self.wanted if about not in self.done]

    def step(self, about: str) -> Step:
        async def act() -> None:
            self.tried.append(about)
            if self.errors.get(about):
                raise self.errors[about].pop(0)
            self.done.append(about)
            self.after(about)

        return Step(about, "count it", act)


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
    [ApiUnavailable("away"), ApiRefused(409, "Conflict", "changed"), StoreUnavailable("away"), UserError("no")],
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
