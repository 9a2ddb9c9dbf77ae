"""A rotation's steps: who is in the way, and, by a model of a whole mesh, that nobody ever distrusts anybody."""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from certmgr.bundle import anchors_of
from certmgr.founding import make_generation, new_state
from certmgr.peers import Peer, PeerBook
from certmgr.rotation import SETTLE, StepRefused, abort, advance, plan, start
from certmgr.state import AuthorityState, Generation, Phase
from mesh.errors import UserError

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
LIFE = datetime.timedelta(hours=24)
WEB = "spiffe://cluster.local/ns/shop/sa/web"


@functools.cache
def first() -> AuthorityState:
    return new_state("CN=Model,O=Example", "cluster.local", NOON)


@functools.cache
def generations() -> tuple[Generation, ...]:
    return (first().current, *(make_generation("CN=Model,O=Example", NOON) for _ in range(2)))


def anchors(state: AuthorityState) -> str:
    return anchors_of([generation.root for generation in state.generations])


def peer(state: AuthorityState, at: datetime.datetime, *, serial: int = 1, said: str = "", instance: str = "a") -> Peer:
    return Peer(
        identity=WEB,
        instance=instance,
        generation=state.signer.name,
        serial=f"{serial:x}",
        issued_at=at,
        not_after=at + LIFE,
        acknowledged=said,
        acknowledged_at=at,
    )


def publishing() -> AuthorityState:
    return start(first(), generations()[1], NOON + 10 * SECOND)


def signing() -> AuthorityState:
    return advance(publishing(), PeerBook(), publishing().phase_since + SETTLE)


def test_a_rotation_goes_from_root_to_root_and_shows_what_is_left() -> None:
    old, new = generations()[:2]
    assert plan(first(), PeerBook(), NOON).steps == ()

    assert (publishing().phase, publishing().generations, publishing().signer) == (Phase.PUBLISHING, (old, new), old)
    assert len(plan(publishing(), PeerBook(), NOON).steps) == 2
    assert (signing().phase, signing().generations, signing().signer) == (Phase.SIGNING, (old, new), new)
    assert plan(signing(), PeerBook(), NOON).next_phase is Phase.STABLE
    done = advance(signing(), PeerBook(), signing().phase_since + SETTLE)
    assert (done.phase, done.generations) == (Phase.STABLE, (new,))


def test_a_rotation_is_taken_back_at_once_or_by_way_of_aborting() -> None:
    old, new = generations()[:2]

    assert abort(publishing(), NOON).generations == (old,)
    aborting = abort(signing(), NOON + LIFE)
    assert (aborting.phase, aborting.generations, aborting.signer) == (Phase.ABORTING, (old, new), old)
    assert len(plan(aborting, PeerBook(), NOON).steps) == 1
    assert advance(aborting, PeerBook(), aborting.phase_since + SETTLE).generations == (old,)


def test_steps_that_do_not_fit_the_phase_are_refused() -> None:
    aborting = abort(signing(), NOON + LIFE)
    with pytest.raises(UserError, match="no rotation is under way"):
        advance(first(), PeerBook(), NOON + LIFE)
    with pytest.raises(UserError, match="nothing to take back"):
        abort(first(), NOON)
    with pytest.raises(UserError, match="already"):
        abort(aborting, NOON)
    with pytest.raises(UserError, match="is under way"):
        start(publishing(), generations()[2], NOON)
    with pytest.raises(UserError, match="needs another"):
        start(first(), first().current, NOON)


@pytest.mark.parametrize("state", [publishing, signing])
def test_no_step_is_taken_before_every_replica_knows_of_the_phase(state: object) -> None:
    present = publishing() if state is publishing else signing()

    with pytest.raises(StepRefused, match="every replica must know") as refused:
        advance(present, PeerBook(), present.phase_since + SETTLE - SECOND)
    assert refused.value.blockers == ()
    assert advance(present, PeerBook(), present.phase_since + SECOND, settle=SECOND).phase is not present.phase


def test_a_peer_that_has_not_acknowledged_is_in_the_way_until_it_does_or_ends() -> None:
    state = publishing()
    silent = peer(first(), NOON, said=anchors(first()))
    later = state.phase_since + SETTLE

    with pytest.raises(StepRefused, match=r"^1 live .* web|^1 live .*sa/web \(a\) has not acknowledged") as refused:
        advance(state, PeerBook.of([silent]), later)
    (blocker,) = refused.value.blockers
    assert (blocker.identity, blocker.instance) == (WEB, "a")
    assert "ends at 2030-05-18 12:00:00 UTC" in blocker.why
    said = silent.acknowledging(anchors(state), state.phase_since + SECOND)
    assert advance(state, PeerBook.of([said]), later).phase is Phase.SIGNING
    assert advance(state, PeerBook.of([silent]), NOON + LIFE + SECOND).phase is Phase.SIGNING


def test_what_was_acknowledged_to_an_aborted_attempt_does_not_count_for_the_next_one() -> None:
    first_try = publishing()
    said = peer(first(), NOON).acknowledging(anchors(first_try), first_try.phase_since + SECOND / 2)
    # All within one second, as a script does it.
    second_try = start(abort(first_try, first_try.phase_since), generations()[1], first_try.phase_since)

    assert anchors(second_try) == anchors(first_try)
    with pytest.raises(StepRefused, match="has not acknowledged"):
        advance(second_try, PeerBook.of([said]), NOON + 60 * SECOND)
    again = said.acknowledging(anchors(second_try), second_try.phase_since + SECOND)
    assert advance(second_try, PeerBook.of([again]), NOON + 60 * SECOND).phase is Phase.SIGNING


def test_a_renewal_that_may_not_have_arrived_leaves_the_old_certificate_in_the_way() -> None:
    state = signing()
    old, new = peer(first(), NOON), peer(state, state.phase_since + SECOND, serial=2)
    later = state.phase_since + SETTLE

    with pytest.raises(StepRefused, match="root that is to be dropped"):
        advance(state, PeerBook.of([old, new]), later)
    shown = new.acknowledging(anchors(state), later)
    assert advance(state, PeerBook.of([old, shown]), later).phase is Phase.STABLE


def test_a_refusal_names_a_handful_and_counts_the_rest() -> None:
    book = PeerBook.of(peer(first(), NOON, instance=f"pod-{n}", serial=n + 1) for n in range(9))

    with pytest.raises(StepRefused, match=r"^9 live .*pod-4.*; and 4 more$") as refused:
        advance(publishing(), book, NOON + 60 * SECOND)
    assert "pod-5" not in str(refused.value)
    assert len(refused.value.blockers) == 9


@dataclass
class Holder:
    """A process: the roots that it trusts, and the certificate that it uses."""

    trusts: AuthorityState
    certificate: Peer


class Mesh(RuleBasedStateMachine):
    """Peers that come, go, restart, renew with or without an answer, and acknowledge when they like.

    Replicas issue by a state that may be as old as SETTLE, and hand it to who is new. Who is there already follows what
    is published later than what it has, at any distance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.history = [(NOON, first())]
        self.holders: dict[str, Holder] = {}
        self.book = PeerBook()
        self.serial = 0

    @property
    def state(self) -> AuthorityState:
        return self.history[-1][1]

    def known(self, data: st.DataObject) -> AuthorityState:
        """What one of the replicas goes by: a state that was replaced less than SETTLE ago, or the present one."""
        ends = [since for since, _ in self.history[1:]] + [self.now + SECOND]
        recent = [i for i, end in enumerate(ends) if end > self.now - SETTLE]
        return self.history[data.draw(st.sampled_from(recent))][1]

    def enter(self, state: AuthorityState) -> None:
        self.history.append((self.now, state))

    def issue(self, instance: str, state: AuthorityState, said: str) -> Peer:
        self.serial += 1
        issued = peer(state, self.now, serial=self.serial, said=said, instance=instance)
        self.book = self.book.without_ended(self.now).with_peer(issued)
        return issued

    def some(self, data: st.DataObject) -> tuple[str, Holder]:
        return data.draw(st.sampled_from(sorted(self.holders.items(), key=lambda item: item[0])))

    @rule(data=st.data(), instance=st.sampled_from("abc"))
    def enrol_or_restart(self, data: st.DataObject, instance: str) -> None:
        known = self.known(data)
        said = data.draw(st.sampled_from(["", anchors(known)]))
        self.holders[instance] = Holder(known, self.issue(instance, known, said))

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), arrives=st.booleans())
    def renew(self, data: st.DataObject, arrives: bool) -> None:
        instance, holder = self.some(data)
        issued = self.issue(instance, self.known(data), anchors(holder.trusts))
        if arrives:
            holder.certificate = issued

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), everybody=st.booleans(), says_so=st.booleans())
    def follow(self, data: st.DataObject, everybody: bool, says_so: bool) -> None:
        self.now += 2 * SECOND
        for _, holder in self.holders.items() if everybody else [self.some(data)]:
            holder.trusts = self.state
            if says_so:
                self.say(holder)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.say(self.some(data)[1])

    def say(self, holder: Holder) -> None:
        own = holder.certificate
        written = self.book.find(own.identity, own.instance, own.serial)
        if written is not None:
            self.book = self.book.with_peer(written.acknowledging(anchors(holder.trusts), self.now))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        del self.holders[self.some(data)[0]]

    @rule(seconds=st.sampled_from([0.25, 1, 29, 31, 40000]))
    def wait(self, seconds: float) -> None:
        self.now += seconds * SECOND
        ended = [name for name, holder in self.holders.items() if holder.certificate.not_after < self.now]
        for name in ended:
            del self.holders[name]

    @precondition(lambda self: self.state.phase is Phase.STABLE)
    @rule(which=st.integers(0, 2))
    def start(self, which: int) -> None:
        if generations()[which] != self.state.current:
            self.enter(start(self.state, generations()[which], self.now))

    @precondition(lambda self: self.state.phase is not Phase.STABLE)
    @rule(
        seconds=st.sampled_from([0, 1, 31]),
        others=st.sampled_from(["silent", "say so", "renew"]),
        spared=st.integers(0, 1),
    )
    def advance(self, seconds: int, others: str, spared: int) -> None:
        """Some time on; the other peers have done their part meanwhile, or not: else few runs would get anywhere."""
        self.now += 2 * SECOND
        for instance, holder in list(self.holders.items())[spared:]:
            if others != "silent":
                holder.trusts = self.state
            if others == "renew":
                holder.certificate = self.issue(instance, self.state, anchors(self.state))
            if others != "silent":
                self.say(holder)
        self.now += seconds * SECOND
        try:
            self.enter(advance(self.state, self.book, self.now))
        except StepRefused:
            return

    @precondition(lambda self: self.state.phase in (Phase.PUBLISHING, Phase.SIGNING))
    @rule(really=st.integers(0, 3))
    def abort(self, really: int) -> None:
        if really == 0:
            self.enter(abort(self.state, self.now))

    @invariant()
    def every_live_peer_trusts_every_other(self) -> None:
        for reader in self.holders.values():
            trusted = {generation.name for generation in reader.trusts.generations}
            assert {holder.certificate.generation for holder in self.holders.values()} <= trusted


TestMesh = Mesh.TestCase
TestMesh.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
