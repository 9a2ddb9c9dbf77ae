"""Who holds our certificates, written down before anybody gets one: this replica's book, and those of all others.

Each replica keeps one document, `peers-<replica>`, of the peers that it served. One write is under way at a time; what
comes meanwhile goes into the next, so that a hundred certificates at once cost one write.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable

from certmgr.peers import Peer, PeerBook
from certmgr.store import PEERS_PREFIX, Store, StoreConflict, StoreUnavailable

# A conflict on a document that is ours alone: another process has our name, or had it a moment ago.
_ATTEMPTS = 5


class Ledger:
    """The peers of one replica. `after_write` is awaited behind each write, before those who wait for it go on."""

    def __init__(
        self,
        store: Store,
        replica: str,
        *,
        now: Callable[[], datetime.datetime],
        after_write: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._name = PEERS_PREFIX + replica
        self._now = now
        self._after_write = after_write
        self._book = PeerBook()
        self._version: str | None = None
        self._waiting: list[tuple[Peer, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._book)

    async def open(self) -> None:
        """Take up what this replica wrote before it was restarted."""
        if (stored := await self._store.load(self._name)) is not None:
            self._book, self._version = PeerBook.decode(stored.document), stored.version

    async def record(self, peer: Peer) -> None:
        """Return when `peer` is written down. Raises StoreUnavailable, and UserError for what will not mend itself."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((peer, written))
        if self._writer is None:
            # It is no child of who happened to come first: cancelling that one must not fail the others.
            self._writer = asyncio.create_task(self._write_all())
        await written

    def check_room(self, identity: str, instance: str) -> None:
        """Raise Refused where the identity has as many instances as may be."""
        self._book.check_room(identity, instance, self._now())

    async def find(self, identity: str, instance: str, serial: str) -> Peer | None:
        """This certificate of the instance, whichever replica issued it; its newest, where `serial` is empty."""
        own = self._book.find(identity, instance, serial)
        return own or (await self.everyone()).find(identity, instance, serial)

    async def everyone(self) -> PeerBook:
        """The books of all replicas as one, as they are in the store at this moment; the ended left out."""
        books = [
            PeerBook.decode(stored.document)
            for name in await self._store.names()
            if name.startswith(PEERS_PREFIX) and (stored := await self._store.load(name)) is not None
        ]
        merged = PeerBook()
        for book in books:
            merged = merged.merge(book)
        return merged.without_ended(self._now())

    async def forget_ended(self) -> None:
        """Remove the documents of replicas that are gone and whose peers have all ended."""
        now = self._now()
        for name in await self._store.names():
            if not name.startswith(PEERS_PREFIX) or name == self._name:
                continue
            stored = await self._store.load(name)
            if stored is not None and not PeerBook.decode(stored.document).live(now):
                try:
                    await self._store.delete(name, stored.version)
                except StoreConflict:
                    continue  # it is not gone after all

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                failure: Exception | None = None
                try:
                    await self._write([peer for peer, _ in batch])
                    await self._after_write()
                except Exception as error:  # noqa: BLE001  # it is theirs who wait
                    failure = error
                for _, written in batch:
                    if written.done():  # whoever asked was cancelled meanwhile
                        continue
                    if failure is None:
                        written.set_result(None)
                    else:
                        written.set_exception(failure)
        finally:
            self._writer = None

    async def _write(self, peers: list[Peer]) -> None:
        for _ in range(_ATTEMPTS):
            book = self._book.without_ended(self._now())
            for peer in peers:
                book = book.with_peer(peer)
            try:
                self._version = await self._store.save(self._name, book.encode(), self._version)
            except StoreConflict:
                stored = await self._store.load(self._name)
                self._version = stored.version if stored else None
                if stored is not None:
                    self._book = self._book.merge(PeerBook.decode(stored.document))
                continue
            self._book = book
            return
        raise StoreUnavailable("another replica of the same name keeps changing the list of peers; give each its own")
