"""What the leader of the replicas does from time to time: lists, intermediates, the root's rotation, forgetting.

Each of them is one compare-and-swap of the state, so that two who both take themselves for the leader do no harm.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from certmgr import founding, revocation, rotation, state
from certmgr.ledger import Ledger
from certmgr.peers import PeerBook
from certmgr.rotation import StepRefused
from certmgr.state import AuthorityState, Phase
from certmgr.store import StoreUnavailable
from mesh.errors import UserError

# Seconds. What is due within hours, or waits for peers that answer within half a minute, need not be looked at sooner.
PAUSE: Final = 5.0
# Looks between two at the documents of other replicas: each costs a read of all of them.
_ROUNDS_BETWEEN_SWEEPS: Final = 720  # an hour

_log = logging.getLogger("qbitel.certmgr")


class Changeable(Protocol):
    """What of service.AuthorityService is needed here."""

    ledger: Ledger

    @property
    def state(self) -> AuthorityState: ...

    async def change(self, transform: Callable[[AuthorityState], AuthorityState | None]) -> bool: ...


class Upkeep:
    """Runs beside the API. `is_leader` is asked before each step.

    `settle` is how long, in seconds of `monotonic`, nobody may have been in the way of a rotation's step; `pause`
    seconds are between two rounds.
    """

    def __init__(
        self,
        service: Changeable,
        now: Callable[[], datetime.datetime],
        is_leader: Callable[[], bool],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        settle: float = rotation.SETTLE,
        pause: float = PAUSE,
    ) -> None:
        self._service = service
        self._now = now
        self._is_leader = is_leader
        self._monotonic = monotonic
        self._settle = settle
        self._pause = pause
        self._rounds = 0
        self._said = ""
        # Of which phase and round nobody is in the way, and since when.
        self._clear: tuple[Phase, int, float] | None = None

    async def run(self) -> None:
        """Until cancelled. A store that fails is asked again; a bug ends it, and with it the authority."""
        while True:
            if self._is_leader():
                try:
                    await self.round()
                except (StoreUnavailable, UserError) as error:
                    self._say(logging.ERROR, f"the authority cannot be kept up, what there is stays in use: {error}")
            else:
                self._clear = None  # what came and went meanwhile was not ours to see
            await asyncio.sleep(self._pause)

    async def round(self) -> None:
        """Everything that is due now. Raises StoreUnavailable, UserError."""
        change, now = self._service.change, self._now()
        await change(lambda present: state.forget_ended(present, now))
        if await change(lambda present: founding.renew_intermediate(present, now)):
            _log.info("made a new intermediate, which signs from now on")
        await change(
            lambda present: revocation.sign_lists(present, now) if revocation.lists_due(present, now) else None
        )
        await self.step_rotation()
        if self._rounds % _ROUNDS_BETWEEN_SWEEPS == 0:
            await self._service.ledger.remove_ended()
        self._rounds += 1

    async def step_rotation(self) -> None:
        """Go on with a rotation whose next step would break nobody, and would not have for a while."""
        present = self._service.state
        if present.phase is Phase.STABLE:
            self._clear = None
            return
        peers = unrevoked(present, await self._service.ledger.everyone())
        try:
            rotation.advance(present, peers, self._now())
            if not self._has_settled(present):
                return
            stepped = await self._service.change(
                lambda newest: (
                    revocation.sign_lists(rotation.advance(newest, peers, self._now()), self._now())
                    if (newest.phase, newest.round) == (present.phase, present.round)
                    else None
                )
            )
        except StepRefused as refused:
            self._clear = None
            self._say(logging.INFO, f"the root's rotation waits: {refused}")
            return
        if stepped:
            _log.info("the root's rotation went on: %s is now %s", present.phase.value, self._service.state.phase.value)

    def _has_settled(self, present: AuthorityState) -> bool:
        """Whether nobody has been in the way for long enough; counted from the first time that this is asked."""
        if self._clear is None or self._clear[:2] != (present.phase, present.round):
            self._clear = (present.phase, present.round, self._monotonic())
        return self._monotonic() - self._clear[2] >= self._settle

    def _say(self, level: int, message: str) -> None:
        """Once for as long as it stays the same."""
        if message != self._said:
            self._said = message
            _log.log(level, "%s", message)


def unrevoked(present: AuthorityState, peers: PeerBook) -> PeerBook:
    """Without those that nobody accepts any more: they cannot break."""
    generations = {state.short_hash(issuer): one.name for one in present.generations for issuer in one.authorities}
    revoked = ((generations.get(one.issuer), f"{one.serial:x}") for one in present.revoked)
    return peers.without(frozenset((name, serial) for name, serial in revoked if name is not None))
