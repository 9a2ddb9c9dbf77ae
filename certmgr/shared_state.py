"""The authority's state, which several replicas share by a store: what of it this one knows, and how it is changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from cryptography import x509

from certmgr.bundle import bundle_of
from certmgr.parts import Bundle
from certmgr.revocation import is_revoked
from certmgr.state import AuthorityState
from certmgr.state_document import decode_state, encode_state
from certmgr.store import AUTHORITY_DOCUMENT, Store, StoreConflict, Stored, StoreUnavailable
from mesh.errors import UserError

# Of compare-and-swap: each failure means that somebody else got on, so a handful is far more than ever happens.
_ATTEMPTS: Final = 8
# Seconds to wait before the store is asked again after it failed.
_STORE_PAUSE: Final = 2.0

_log = logging.getLogger("qbitel.certmgr")


class SharedState:
    """The newest state that this replica has seen, and the bundle that it makes."""

    def __init__(self, store: Store, stored: Stored) -> None:
        """Use `open()`."""
        self._store = store
        self._stored = stored
        self._state = decode_state(stored.document)
        self._bundle = bundle_of(self._state)
        self._revoked_serials = _serials(self._state)
        self._changed = asyncio.Event()
        # Held from asking the store to taking up its answer: an answer that is overtaken must not undo a newer one.
        self._asking = asyncio.Lock()

    @classmethod
    async def open(cls, store: Store) -> SharedState:
        """Read the state. Raises UserError where the store has no authority, StoreUnavailable where it is away."""
        stored = await store.load(AUTHORITY_DOCUMENT)
        if stored is None:
            raise UserError("there is no authority yet; make one with `qbitel ca init`")
        return cls(store, stored)

    @property
    def present(self) -> AuthorityState:
        """The state as this replica knows it."""
        return self._state

    @property
    def bundle(self) -> Bundle:
        """What is published of it."""
        return self._bundle

    async def next_bundle(self, after: str) -> Bundle:
        """The bundle once its ETag is another than `after`."""
        while self._bundle.etag == after:
            await self._changed.wait()
        return self._bundle

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate of this authority is revoked."""
        # Asked with each certificate that is shown, while ten thousand may be revoked.
        return certificate.serial_number in self._revoked_serials and is_revoked(self._state, certificate)

    async def change(self, transform: Callable[[AuthorityState], AuthorityState | None]) -> bool:
        """Replace the state by what `transform` makes of the newest one; False where it makes None of it.

        Decided again when somebody else was faster. Raises what `transform` raises, StoreUnavailable and UserError.
        """
        async with self._asking:
            for _ in range(_ATTEMPTS):
                state = transform(self._state)
                if state is None or state == self._state:
                    return False
                document = encode_state(state)
                try:
                    version = await self._store.save(AUTHORITY_DOCUMENT, document, self._stored.version)
                except StoreConflict:
                    await self._load_newest()
                    continue
                self._adopt(Stored(document, version))
                return True
        raise StoreUnavailable("the authority's state is changed by others all the time; try again")

    async def confirm(self) -> None:
        """Make sure that we know the newest state. Raises StoreUnavailable and UserError."""
        async with self._asking:
            await self._load_newest()

    async def follow(self) -> None:
        """Take up what others change, until cancelled."""
        while True:
            try:
                await self._store.changed(AUTHORITY_DOCUMENT, self._stored.version)
                await self.confirm()
            except (StoreUnavailable, UserError) as error:
                _log.warning("the authority's state cannot be read, what is known stays in use: %s", error)
                await asyncio.sleep(_STORE_PAUSE)

    async def _load_newest(self) -> None:
        stored = await self._store.load(AUTHORITY_DOCUMENT)
        if stored is None:
            raise StoreUnavailable("the authority's state is gone from the store; restore it from a backup")
        if stored.version != self._stored.version:
            self._adopt(stored)

    def _adopt(self, stored: Stored) -> None:
        state = decode_state(stored.document)
        before = self._bundle.etag
        self._stored, self._state, self._bundle = stored, state, bundle_of(state)
        self._revoked_serials = _serials(state)
        if self._bundle.etag != before:
            self._changed.set()
            self._changed = asyncio.Event()


def _serials(state: AuthorityState) -> frozenset[int]:
    return frozenset(one.serial for one in state.revoked)
