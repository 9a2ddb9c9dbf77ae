"""A rotation's steps, and who is in the way of each. That they are the right ones: test_rotation_model.py."""

from __future__ import annotations

import datetime
import functools

import pytest

from certmgr.founding import make_generation, new_state
from certmgr.peers import CLOCK_SKEW, Peer, PeerBook
from certmgr.rotation import StepRefused, abort, advance, plan, start
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


def peer(state: AuthorityState, *, number: int = 1, said: int = 0, instance: str = "a") -> Peer:
    return Peer(
        identity=WEB,
        instance=instance,
        generation=state.signer.name,
        serial=f"{number:x}",
        issued_at=NOON,
        not_after=NOON + LIFE,
        acknowledged=said,
        origin="1",
        number=number,
    )


def publishing() -> AuthorityState:
    return start(first(), generations()[1], NOON + 10 * SECOND)


def signing() -> AuthorityState:
    return advance(publishing(), PeerBook(), NOON + 60 * SECOND)


def test_a_rotation_goes_from_root_to_root_and_shows_what_is_left() -> None:
    old, new = generations()[:2]
    assert plan(first(), PeerBook(), NOON).steps == ()

    assert (publishing().phase, publishing().generations, publishing().signer) == (Phase.PUBLISHING, (old, new), old)
    assert len(plan(publishing(), PeerBook(), NOON).steps) == 2
    assert (signing().phase, signing().generations, signing().signer) == (Phase.SIGNING, (old, new), new)
    assert plan(signing(), PeerBook(), NOON).next_phase is Phase.STABLE
    done = advance(signing(), PeerBook(), NOON)
    assert (done.phase, done.generations) == (Phase.STABLE, (new,))


def test_a_rotation_is_taken_back_at_once_or_by_way_of_aborting() -> None:
    old, new = generations()[:2]

    assert abort(publishing(), NOON).generations == (old,)
    aborting = abort(signing(), NOON + LIFE)
    assert (aborting.phase, aborting.generations, aborting.signer) == (Phase.ABORTING, (old, new), old)
    assert len(plan(aborting, PeerBook(), NOON).steps) == 1
    assert advance(aborting, PeerBook(), NOON).generations == (old,)


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


def test_each_beginning_and_each_taking_back_is_a_round_of_its_own() -> None:
    old, new = generations()[:2]
    begun, ended = publishing(), advance(signing(), PeerBook(), NOON)
    assert first().round < begun.round == signing().round == ended.round
    aborting = abort(signing(), NOON)
    assert begun.round < aborting.round == advance(aborting, PeerBook(), NOON).round
    back = abort(begun, NOON)
    assert begun.round < back.round < start(back, new, NOON - LIFE).round  # whatever a clock says
    assert back.generations == (old,)


def test_a_round_is_higher_than_those_of_a_state_that_was_lost() -> None:
    lost = start(abort(publishing(), NOON + LIFE), generations()[2], NOON + LIFE)
    assert start(first(), generations()[1], NOON + LIFE + 5 * SECOND).round > lost.round


def test_a_peer_that_has_not_acknowledged_is_in_the_way_until_it_does_or_ends() -> None:
    state = publishing()
    silent = peer(first())

    with pytest.raises(StepRefused, match=r"^1 live .*sa/web \(a\) has not acknowledged") as refused:
        advance(state, PeerBook([silent]), NOON)
    (blocker,) = refused.value.blockers
    assert (blocker.identity, blocker.instance) == (WEB, "a")
    assert "ends at 2030-05-18 12:00:00 UTC" in blocker.why
    assert (blocker.serial, blocker.until) == (silent.serial, NOON + LIFE + CLOCK_SKEW)
    assert advance(state, PeerBook([silent.acknowledging(state.round)]), NOON).phase is Phase.SIGNING
    # A clock that is behind ours by as much as may be takes the certificate a while longer.
    with pytest.raises(StepRefused):
        advance(state, PeerBook([silent]), NOON + LIFE + CLOCK_SKEW)
    assert advance(state, PeerBook([silent]), NOON + LIFE + CLOCK_SKEW + SECOND).phase is Phase.SIGNING


def test_what_was_acknowledged_to_an_aborted_attempt_does_not_count_for_the_next_one() -> None:
    first_try = publishing()
    said = peer(first()).acknowledging(first_try.round)
    # All within one second, as a script does it, or by clocks that go backwards.
    second_try = start(abort(first_try, NOON), generations()[1], NOON - LIFE)

    assert second_try.generations == first_try.generations
    with pytest.raises(StepRefused, match="has not acknowledged"):
        advance(second_try, PeerBook([said]), NOON)
    again = said.acknowledging(second_try.round)
    assert advance(second_try, PeerBook([again]), NOON).phase is Phase.SIGNING


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_renewal_that_may_not_have_arrived_leaves_the_old_certificate_in_the_way(taken_back: bool) -> None:
    state = abort(signing(), NOON) if taken_back else signing()
    old, new = peer(signing() if taken_back else first()), peer(state, number=2)

    with pytest.raises(StepRefused, match="root that is to be dropped"):
        advance(state, PeerBook([old, new]), NOON)
    assert advance(state, PeerBook([old, new.acknowledging(0)]), NOON).phase is Phase.STABLE


def test_a_refusal_names_a_handful_and_counts_the_rest() -> None:
    book = PeerBook(peer(first(), instance=f"pod-{n}", number=n + 1) for n in reversed(range(9)))

    with pytest.raises(StepRefused, match=r"^9 live .*pod-4.*; and 4 more$") as refused:
        advance(publishing(), book, NOON)
    assert "pod-5" not in str(refused.value)
    assert [one.instance for one in refused.value.blockers] == [f"pod-{n}" for n in range(9)]
