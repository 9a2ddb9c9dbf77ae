"""The arithmetic of leading: never two leaders, whatever clocks, delays, losses and pauses there are."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from kube.lease import DEADLINE, DURATION, RETRY, Claim, Record


def test_nobody_leads_before_a_write_was_accepted() -> None:
    claim = Claim("one")
    claim.saw(None, 100.0)

    assert claim.may_write(100.0)
    assert not claim.leads(100.0)


def test_a_leader_leads_from_its_accepted_write_until_the_deadline_after_it_was_asked_for() -> None:
    claim = Claim("one")
    claim.wrote(Record("one", DURATION, "7"), 100.0)

    assert claim.record == Record("one", DURATION, "7")
    assert claim.leads(100.0)
    assert claim.leads(100.0 + DEADLINE - 0.001)
    assert not claim.leads(100.0 + DEADLINE)
    claim.let_go()
    assert not claim.leads(100.0)


def test_another_s_record_is_respected_for_its_whole_duration_after_it_was_first_seen() -> None:
    claim = Claim("two")
    held = Record("one", 15.0, "7")
    claim.saw(held, 100.0)
    claim.saw(held, 110.0)  # unchanged: the time runs on

    assert not claim.may_write(114.9)
    assert claim.may_write(115.0)
    claim.saw(dataclasses.replace(held, version="8"), 114.9)
    assert not claim.may_write(129.8)


@pytest.mark.parametrize("holder", ["", "two"])
def test_what_is_nobody_s_or_one_s_own_may_be_written_at_once(holder: str) -> None:
    claim = Claim("two")
    claim.saw(Record(holder, 15.0, "7"), 100.0)

    assert claim.may_write(100.0)


def test_a_record_without_sense_does_not_keep_everybody_out_for_ever() -> None:
    claim = Claim("two")
    claim.saw(Record("one", 1e9, "7"), 100.0)
    assert claim.may_write(800.0)
    claim.saw(Record("one", -5.0, "8"), 900.0)
    assert claim.may_write(900.0)


def test_the_deadline_leaves_room_for_clocks_and_the_retries_fit_into_it() -> None:
    rate = 1.1  # a clock that is a tenth fast, against one that is a tenth slow
    assert DEADLINE * rate < DURATION / rate
    assert DEADLINE > 3 * RETRY


# A world: candidates whose clocks start anywhere and run a tenth fast or slow, a store that takes what names its
# version, messages that take any time or get lost, candidates that freeze. Time is simulated.


@dataclass
class Candidate:
    claim: Claim
    offset: float
    rate: float

    def clock(self, time: float) -> float:
        return self.offset + time * self.rate


class World:
    def __init__(self, chance: random.Random, candidates: int, *, calm: bool = False) -> None:
        self.chance = chance
        self.calm = calm
        self.time = 0.0
        self.record: Record | None = None
        self.versions = itertools.count(1)
        self.order = itertools.count()
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.candidates = [
            Candidate(Claim(str(number)), chance.uniform(-1e6, 1e6), chance.choice([0.9, 1.0, 1.1]))
            for number in range(candidates)
        ]
        self.reigns: list[str] = []
        for candidate in self.candidates:
            self.later(chance.uniform(0, 5), partial(self.turn, candidate))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.time + seconds, next(self.order), act))

    def delay(self) -> float:
        """Mostly quick, at times longer than everything else takes."""
        slow = not self.calm and self.chance.random() < 0.1
        return self.chance.uniform(0, 30) if slow else self.chance.uniform(0, 0.5)

    def turn(self, it: Candidate) -> None:
        """As Election._try: read unless leading, then write if allowed; each message is on its way for some time."""
        if it.claim.leads(it.clock(self.time)):
            self.write(it)
        else:
            self.later(self.delay(), lambda: self.answer(it))

    def answer(self, it: Candidate) -> None:
        seen = self.record
        self.later(self.delay(), lambda: self.read(it, seen))

    def read(self, it: Candidate, seen: Record | None) -> None:
        it.claim.saw(seen, it.clock(self.time))
        if it.claim.may_write(it.clock(self.time)):
            self.write(it)
        else:
            self.rest(it)

    def write(self, it: Candidate) -> None:
        asked, over = it.clock(self.time), it.claim.record
        self.later(self.delay(), lambda: self.arrive(it, over, asked))

    def arrive(self, it: Candidate, over: Record | None, asked: float) -> None:
        if self.record != over:
            self.later(self.delay(), lambda: self.answer(it))  # a conflict: it reads
            return
        written = self.record = Record(it.claim.identity, DURATION, str(next(self.versions)))
        if not self.calm and self.chance.random() < 0.1:  # the answer is lost
            self.later(3.0, lambda: self.rest(it))
            return
        self.later(self.delay(), lambda: self.accepted(it, written, asked))

    def accepted(self, it: Candidate, written: Record, asked: float) -> None:
        it.claim.wrote(written, asked)
        if it.claim.leads(it.clock(self.time)):
            self.reigns.append(it.claim.identity)
        self.rest(it)

    def rest(self, it: Candidate) -> None:
        frozen = 0.0 if self.calm else self.chance.choice([0.0] * 8 + [7.0, 60.0])
        self.later(RETRY + frozen, lambda: self.turn(it))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.time, _, act = heapq.heappop(self.queue)
            act()
            leaders = [each.claim.identity for each in self.candidates if each.claim.leads(each.clock(self.time))]
            assert len(leaders) <= 1, leaders


@pytest.mark.parametrize("candidates", [2, 3, 5])
def test_there_are_never_two_leaders(candidates: int) -> None:
    reigns: list[str] = []
    for seed in range(40):
        world = World(random.Random(seed), candidates)  # noqa: S311  # the same worlds each time
        world.run(1500)
        reigns += world.reigns

    # Leading does go round, or the above would say nothing.
    changes = sum(one != other for one, other in itertools.pairwise(reigns))
    assert changes > 40 * 10


def test_in_a_calm_world_the_first_leader_stays() -> None:
    world = World(random.Random(1), 3, calm=True)  # noqa: S311  # as above
    world.run(1000)

    assert len(world.reigns) > 100
    assert len(set(world.reigns)) == 1
