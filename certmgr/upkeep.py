"""What the leader of the replicas does from time to time: lists, intermediates, the root's rotation, forgetting.

Each of them is one compare-and-swap of the state, so that two who both take themselves for the leader do no harm.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
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
    """Runs beside the API. `is_leader` is asked before each step."""

    def __init__(
        self, service: Changeable, now: Callable[[], datetime.datetime], is_leader: Callable[[], bool]
    ) -> None:
        self._service = service
        self._now = now
        self._is_leader = is_leader
        self._rounds = 0
        self._said = ""

    async def run(self) -> None:
        """Until cancelled. A store that fails is asked again; a bug ends it, and with it the authority."""
        while True:
            if self._is_leader():
                try:
                    await self.round()
                except (StoreUnavailable, UserError) as error:
                    self._say(logging.ERROR, f"the authority cannot be kept up, what there is stays in use: {error}")
            await asyncio.sleep(PAUSE)

    async def round(self) -> None:
        """Everything that is due now. Raises StoreUnavailable, UserError."""
        change, now = self._service.change, self._now()
        await change(lambda present: state.forget_ended(present, now))
        if await change(lambda present: founding.renew_intermediate(present, now)):
            _log.info("made a new intermediate, which signs from now on")
        await change(
            lambda present: revocation.sign_lists(present, now) if revocation.lists_due(present, now) else None
        )
        await self._step_rotation()
        if self._rounds % _ROUNDS_BETWEEN_SWEEPS == 0:
            await self._service.ledger.forget_ended()
        self._rounds += 1

    async def _step_rotation(self) -> None:
        """Go on with a rotation whose next step would break nobody."""
        present = self._service.state
        if present.phase is Phase.STABLE:
            return
        # The time first, then the peers (rotation.advance): whoever is written down later keeps to the present phase.
        now = self._now()
        peers = unrevoked(present, await self._service.ledger.everyone())
        try:
            stepped = await self._service.change(
                lambda newest: (
                    revocation.sign_lists(rotation.advance(newest, peers, now), now)
                    if newest.phase is present.phase
                    else None
                )
            )
        except StepRefused as refused:
            self._say(logging.INFO, f"the root's rotation waits: {refused}")
            return
        if stepped:
            _log.info("the root's rotation went on: %s is now %s", present.phase.value, self._service.state.phase.value)

    def _say(self, level: int, message: str) -> None:
        """Once for as long as it stays the same."""
        if message != self._said:
            self._said = message
            _log.log(level, "%s", message)


def unrevoked(present: AuthorityState, peers: PeerBook) -> PeerBook:
    """Without those that nobody accepts any more: they cannot break."""
    for generation in present.generations:
        issuers = {state.short_hash(one) for one in generation.authorities}
        serials = frozenset(f"{one.serial:x}" for one in present.revoked if one.issuer in issuers)
        peers = peers.without_revoked(generation.name, serials)
    return peers
