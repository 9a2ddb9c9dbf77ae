"""The root's rotation (ADR 12): which step comes next, and who would break if it were taken now.

Two rules keep every live peer trusting every other: nothing is signed by a root before all have said that they trust
it, and no root is withdrawn before nobody's certificate needs it. What was said is told apart by rounds, which the
authority counts; no clock decides but for a certificate's end, and there whole minutes are left for clocks that differ.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509

from certmgr.authority import whole_second
from certmgr.peers import CLOCK_SKEW, Peer, PeerBook
from certmgr.state import AuthorityState, Generation, Phase, is_list_of
from mesh.errors import UserError

# For how long nobody may have been in the way before a step is taken, in seconds, by the clock of whoever takes it. A
# handshake that began before the last peer's word is judged by what was trusted, and made with what was shown, before
# it; sidecars give a handshake 10 s by default, and this is three times that.
SETTLE: Final = 30.0
# In a message that a person reads; `Plan` has them all.
_SHOWN_BLOCKERS: Final = 5


@dataclass(frozen=True, slots=True, order=True)
class Blocker:
    """One live certificate that the next step would break; `why` is a clause for a person.

    `serial` is its number in lower-case hexadecimal digits; at `until` it is in nobody's way any more, whatever its
    holder does.
    """

    identity: str
    instance: str
    why: str
    serial: str
    until: datetime.datetime

    def __str__(self) -> str:
        instance = f" ({self.instance})" if self.instance else ""
        return f"{self.identity}{instance} {self.why}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a rotation stands. `next_phase` is None where nothing is under way; `steps` are sentences for a person."""

    phase: Phase
    next_phase: Phase | None
    blockers: tuple[Blocker, ...]
    steps: tuple[str, ...]


class StepRefused(UserError):
    """A step would be taken too early. `blockers` are all who are in the way."""

    def __init__(self, message: str, blockers: tuple[Blocker, ...]) -> None:
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
    return replace(_enter(state, Phase.PUBLISHING, (state.current, new), now), round=_next_round(state, now))


def advance(state: AuthorityState, peers: PeerBook, now: datetime.datetime) -> AuthorityState:
    """Take the next step of the rotation that is under way.

    `peers` must be everybody's, read after `state` was entered: whoever is written down later than that gets a
    certificate by this phase's rules. Only who has seen nobody in the way for SETTLE should call this. Raises
    StepRefused as long as a live peer would break; UserError where no rotation is under way.
    """
    present = plan(state, peers, now)
    if present.next_phase is None:
        raise UserError("no rotation is under way; begin one with `qbitel ca rotate --start`")
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
            back = _enter(state, Phase.STABLE, (state.current,), now)
        case Phase.SIGNING:
            back = _enter(state, Phase.ABORTING, state.generations, now)
        case Phase.ABORTING:
            raise UserError("the rotation is being taken back already")
        case Phase.STABLE:
            raise UserError("no rotation is under way: there is nothing to take back")
    return replace(back, round=_next_round(state, now))


def plan(state: AuthorityState, peers: PeerBook, now: datetime.datetime) -> Plan:
    """Where the rotation of `state` stands and who is in the way of its next step."""
    signer = state.signer.name  # a hash of its root: once, and not for each peer
    reasons = ((peer, _why(state, signer, peer)) for peer in peers.in_use(now - CLOCK_SKEW))
    blockers = sorted(
        Blocker(peer.identity, peer.instance, why, peer.serial, peer.not_after + CLOCK_SKEW)
        for peer, why in reasons
        if why
    )
    return Plan(phase=state.phase, next_phase=_NEXT_PHASE[state.phase], blockers=tuple(blockers), steps=_steps(state))


_NEXT_PHASE: Final = {
    Phase.STABLE: None,
    Phase.PUBLISHING: Phase.SIGNING,
    Phase.SIGNING: Phase.STABLE,
    Phase.ABORTING: Phase.STABLE,
}


def _enter(
    state: AuthorityState, phase: Phase, generations: tuple[Generation, ...], now: datetime.datetime
) -> AuthorityState:
    kept = _of_those_kept(state, generations)
    return replace(kept, phase=phase, generations=generations, phase_since=whole_second(now))


def _next_round(state: AuthorityState, now: datetime.datetime) -> int:
    # Higher than any before, and than those of a state that was lost and restored from a backup: sidecars refuse what
    # is of an earlier round than they have seen. What it is higher by means nothing, so no clock can do harm.
    return max(state.round + 1, int(now.timestamp()))


def _of_those_kept(state: AuthorityState, generations: tuple[Generation, ...]) -> AuthorityState:
    """Without the lists of a generation that is dropped. What was on them is kept: its root may be imported again."""
    dropped = [gone for one in state.generations if one not in generations for gone in one.authorities]
    crls = tuple(pem for pem in state.crls if not any(is_list_of(x509.load_pem_x509_crl(pem), one) for one in dropped))
    return replace(state, crls=crls)


def _why(state: AuthorityState, signer: str, peer: Peer) -> str:
    """What the next step would break for this peer; "" for nothing."""
    if state.phase is Phase.PUBLISHING:
        # The same roots in an earlier round were of an attempt that was taken back: the next one may be dropped since.
        if peer.acknowledged < state.round:
            return f"has not acknowledged the new root ({_end(peer)})"
    elif state.phase is not Phase.STABLE and peer.generation != signer:
        return f"holds a certificate of the root that is to be dropped ({_end(peer)})"
    return ""


def _end(peer: Peer) -> str:
    return f"its certificate ends at {_shown(peer.not_after)}"


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
