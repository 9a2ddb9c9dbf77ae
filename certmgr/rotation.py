"""The root's rotation (ADR 12): which step comes next, and who would break if it were taken now.

Two rules keep every live peer trusting every other: nothing is signed by a root before all have said that they trust
it, and no root is withdrawn before nobody's certificate needs it.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509

from certmgr.authority import whole_second
from certmgr.bundle import anchors_of
from certmgr.peers import Peer, PeerBook
from certmgr.state import AuthorityState, Generation, Phase, is_list_of
from mesh.errors import UserError

# How long another replica may go on signing by the state before. Replicas learn of a change within a second where the
# store can be watched; this leaves room for one that has to find out by asking, and for clocks that differ.
SETTLE: Final = datetime.timedelta(seconds=30)
# In a message that a person reads; `Plan` has them all.
_SHOWN_BLOCKERS: Final = 5
_SECOND: Final = datetime.timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Blocker:
    """One live certificate that the next step would break; `why` is a clause for a person."""

    identity: str
    instance: str
    why: str

    def __str__(self) -> str:
        instance = f" ({self.instance})" if self.instance else ""
        return f"{self.identity}{instance} {self.why}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a rotation stands. `next_phase` is None where nothing is under way; `steps` are sentences for a person.

    `settled_at` is the earliest moment of the next step; before it there may be blockers that nobody knows of yet.
    """

    phase: Phase
    next_phase: Phase | None
    blockers: tuple[Blocker, ...]
    steps: tuple[str, ...]
    settled_at: datetime.datetime


class StepRefused(UserError):
    """A step would be taken too early. `blockers` are all who are in the way; none where only time is."""

    def __init__(self, message: str, blockers: tuple[Blocker, ...] = ()) -> None:
        super().__init__(message)
        self.blockers = blockers


def start(state: AuthorityState, new: Generation, now: datetime.datetime) -> AuthorityState:
    """Publish the root of `new` beside the present one. UserError where a rotation is under way or it is the same."""
    if state.phase is not Phase.STABLE:
        raise UserError(
            f"a rotation is under way ({state.phase.value}): let it end, or take it back with "
            "`qbitel ca rotate --abort`"
        )
    if new.name == state.current.name:
        raise UserError("the new root is the present one; a rotation needs another")
    return _enter(state, Phase.PUBLISHING, (state.current, new), now)


def advance(
    state: AuthorityState, peers: PeerBook, now: datetime.datetime, *, settle: datetime.timedelta = SETTLE
) -> AuthorityState:
    """Take the next step of the rotation that is under way.

    `peers` must be everybody's, read at `now` or later: take the time first. Whatever is issued after that reading is
    issued by this phase's rules, because `now` is at least `settle` behind its beginning. Raises StepRefused before
    that, and as long as a live peer would break; UserError where no rotation is under way.
    """
    present = plan(state, peers, now, settle=settle)
    if present.next_phase is None:
        raise UserError("no rotation is under way; begin one with `qbitel ca rotate --start`")
    if now < present.settled_at:
        raise StepRefused(
            f"the rotation is {state.phase.value} only since {_shown(state.phase_since)}, and every replica must know "
            f"of it first; try again after {_shown(present.settled_at)}"
        )
    if present.blockers:
        raise StepRefused(_in_the_way(present.blockers), present.blockers)
    if present.next_phase is Phase.SIGNING:
        return _enter(state, Phase.SIGNING, state.generations, now)
    return _enter(state, Phase.STABLE, (state.signer,), now)


def abort(state: AuthorityState, now: datetime.datetime) -> AuthorityState:
    """Go back to the present root: at once from `publishing`, by way of `aborting` from `signing`.

    UserError where there is nothing to take back.
    """
    match state.phase:
        case Phase.PUBLISHING:  # nothing was signed by the next root
            return _enter(state, Phase.STABLE, (state.current,), now)
        case Phase.SIGNING:
            return _enter(state, Phase.ABORTING, state.generations, now)
        case Phase.ABORTING:
            raise UserError("the rotation is being taken back already")
        case Phase.STABLE:
            raise UserError("no rotation is under way: there is nothing to take back")


def plan(
    state: AuthorityState, peers: PeerBook, now: datetime.datetime, *, settle: datetime.timedelta = SETTLE
) -> Plan:
    """Where the rotation of `state` stands and who is in the way of its next step."""
    anchors = anchors_of([generation.root for generation in state.generations])
    reasons = [(peer, _why(state, peer, anchors)) for peer in peers.live(now)]
    return Plan(
        phase=state.phase,
        next_phase=_NEXT_PHASE[state.phase],
        blockers=tuple(Blocker(peer.identity, peer.instance, why) for peer, why in reasons if why),
        steps=_steps(state),
        settled_at=state.phase_since + settle,
    )


_NEXT_PHASE: Final = {
    Phase.STABLE: None,
    Phase.PUBLISHING: Phase.SIGNING,
    Phase.SIGNING: Phase.STABLE,
    Phase.ABORTING: Phase.STABLE,
}


def _enter(
    state: AuthorityState, phase: Phase, generations: tuple[Generation, ...], now: datetime.datetime
) -> AuthorityState:
    # A phase begins in a later second than the one before: what was acknowledged to an attempt that was aborted is
    # then older than the next attempt, however soon that follows, and whatever the clocks of two command lines say.
    since = max(whole_second(now), state.phase_since + _SECOND)
    return replace(_of_those_kept(state, generations), phase=phase, generations=generations, phase_since=since)


def _of_those_kept(state: AuthorityState, generations: tuple[Generation, ...]) -> AuthorityState:
    """Without the lists of a generation that is dropped. What was on them is kept: its root may be imported again."""
    dropped = [gone for one in state.generations if one not in generations for gone in one.authorities]
    crls = tuple(pem for pem in state.crls if not any(is_list_of(x509.load_pem_x509_crl(pem), one) for one in dropped))
    return replace(state, crls=crls)


def _why(state: AuthorityState, peer: Peer, anchors: str) -> str:
    """What the next step would break for this peer; "" for nothing."""
    end = f"its certificate ends at {_shown(peer.not_after)}"
    if state.phase is Phase.PUBLISHING:
        # One of the same anchors from before was of an attempt that was aborted: the root may have been dropped since.
        if peer.acknowledged != anchors or peer.acknowledged_at <= state.phase_since:
            return f"has not acknowledged the new root ({end})"
    elif state.phase is not Phase.STABLE and peer.generation != state.signer.name:
        return f"holds a certificate of the root that is to be dropped ({end})"
    return ""


def _in_the_way(blockers: tuple[Blocker, ...]) -> str:
    shown = "; ".join(map(str, blockers[:_SHOWN_BLOCKERS]))
    more = f"; and {len(blockers) - _SHOWN_BLOCKERS} more" if len(blockers) > _SHOWN_BLOCKERS else ""
    noun = "certificate is" if len(blockers) == 1 else "certificates are"
    return f"{len(blockers)} live {noun} in the way of the next step: {shown}{more}"


def _steps(state: AuthorityState) -> tuple[str, ...]:
    current, following = state.current.name, state.next.name if state.next else ""
    signing = f"Every peer acknowledges root {following}; then it signs."
    dropping = f"Every peer renews its certificate under root {following}; then root {current} is dropped."
    match state.phase:
        case Phase.STABLE:
            return ()
        case Phase.PUBLISHING:
            return (signing, dropping)
        case Phase.SIGNING:
            return (dropping,)
        case Phase.ABORTING:
            return (f"Every peer renews its certificate under root {current}; then root {following} is dropped.",)


def _shown(moment: datetime.datetime) -> str:
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
