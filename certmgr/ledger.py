"""Who holds our certificates, written down before anybody gets one: what this replica issued, and all others.

    peers-<replica>         the journal: what was issued or said of late, a few hundred entries
    peers-<replica>.<nn>    the shards, by a hash of who it is: everything else

One write is under way at a time; what comes meanwhile goes into the next, so that a hundred certificates at once cost
one write of some kilobytes. A journal that has grown is moved into the shards beside the writing; a crash in between
leaves entries in both, which are the same.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from certmgr import peer_document
from certmgr.peers import CLOCK_SKEW, MAX_ORIGIN, Key, Peer, PeerBook
from certmgr.store import PEERS_PREFIX, Store, StoreConflict, StoreUnavailable
from mesh.errors import UserError

# An entry takes some 65 bytes: with 20,000 peers of three certificates each, as a rotation may make them, a shard has
# 240 kB. More of them would make the journal's moving dearer, which writes nearly all of them.
SHARDS: Final = 16
# Entries at which the journal is moved. Each batch writes the journal, half of it on average, and each moving all
# shards: at a dozen certificates in a batch and 10,000 peers, this many cost the least, 0.3 ms of CPU for each.
JOURNAL_ENTRIES: Final = 512
# A conflict on a document that is ours alone: another process has our name, or had it a moment ago.
_ATTEMPTS: Final = 5

_log = logging.getLogger("qbitel.certmgr")


@dataclass(slots=True)
class _Document:
    """One of our own, as it was read or written last: which certificates are in it. The book has the peers."""

    name: str
    version: str | None = None
    keys: set[Key] = field(default_factory=set)


class Ledger:
    """The peers of all replicas, of which one writes. `after_write` is awaited behind each write of the journal, before
    those who wait for it go on. `origin` is a name that no other start of a replica has had.
    """

    def __init__(
        self,
        store: Store,
        replica: str,
        *,
        now: Callable[[], datetime.datetime],
        after_write: Callable[[], Awaitable[None]],
        origin: str = "",
    ) -> None:
        self._store = store
        self._now = now
        self._after_write = after_write
        self._origin = origin or secrets.token_hex(MAX_ORIGIN // 2)
        self._journal = _Document(PEERS_PREFIX + replica)
        self._shards = [_Document(f"{PEERS_PREFIX}{replica}.{number:02}") for number in range(SHARDS)]
        self._own = {document.name: document for document in (self._journal, *self._shards)}
        self._book = PeerBook()
        # The highest number that is known of each process's certificates: what a new one of ours is later than.
        self._seen: dict[str, int] = {}
        # Of the documents of others: the version that is in the book, and when the last of their certificates ends.
        self._others: dict[str, tuple[str, datetime.datetime]] = {}
        self._reading = asyncio.Lock()
        self._readings = 0
        self._waiting: list[tuple[Peer, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._mover: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many certificates this replica has written down that have not ended."""
        keys = self._journal.keys.union(*(shard.keys for shard in self._shards))
        return sum(self._book.get(key) is not None for key in keys)

    async def open(self) -> None:
        """Take up what is written down. Raises StoreUnavailable, and UserError where our own cannot be read."""
        for name in self._own:
            await self._read(name)
        try:
            await self.refresh()
        except UserError as error:
            # Of another replica: who needs everyone() is stopped by that, and nobody else.
            _log.error("the list of peers of another replica cannot be used: %s", error)

    async def record(self, peer: Peer) -> None:
        """Return when `peer` is written down. Raises StoreUnavailable, and UserError for what will not mend itself.

        A certificate that is new gets its place in the order of what was issued.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((peer, written))
        if self._writer is None:
            # It is no child of who happened to come first: cancelling that one must not fail the others.
            self._writer = asyncio.create_task(self._write_all())
        await written

    def check_room(self, identity: str, instance: str) -> None:
        """Raise Refused where the identity has as many instances as may be, at all replicas as far as that is known."""
        self._book.check_room(identity, instance, self._now())

    async def find(self, identity: str, instance: str, serial: str) -> Peer | None:
        """This certificate of the instance, whichever replica issued it; its last one, where `serial` is empty.

        Raises StoreUnavailable, UserError.
        """
        await self.know(serial)
        return self._book.find(identity, instance, serial)

    async def know(self, serial: str) -> None:
        """Read what others wrote, unless this certificate is known: also under another name than its holder says."""
        if not self._book.knows(serial):
            await self.refresh()

    def is_superseded(self, peer: Peer) -> bool:
        """Whether its instance has shown a later certificate, as far as that is known here."""
        return self._book.is_superseded(peer)

    async def everyone(self) -> PeerBook:
        """The peers of all replicas: none is missing that was written down before this was called.

        It is the ledger's own book, which goes on growing. Raises StoreUnavailable, UserError.
        """
        await self.refresh()
        return self._book

    async def refresh(self) -> None:
        """Take up what other replicas wrote, and forget what has ended. Raises StoreUnavailable, UserError."""
        wanted = self._readings + 1
        async with self._reading:
            if self._readings >= wanted:
                return  # one that began after we came has been enough for all who waited
            self._readings += 1
            versions = await self._store.versions()
            self._others = {name: known for name, known in self._others.items() if name in versions}
            failures = []
            for name, version in versions.items():
                if name.startswith(PEERS_PREFIX) and self._version_of(name) != version:
                    try:
                        await self._read(name)
                    except UserError as error:
                        failures.append(error)
            self._forget_ended()
            if failures:
                raise failures[0]

    async def remove_ended(self) -> None:
        """Delete the documents of replicas that are gone and whose peers have all ended. Raises StoreUnavailable."""
        await self.refresh()
        for name, (version, end) in list(self._others.items()):
            if end + CLOCK_SKEW < self._now():
                try:
                    await self._store.delete(name, version)
                except StoreConflict:
                    continue  # it is not gone after all

    # -- reading ------------------------------------------------------------------------------------------------

    def _version_of(self, name: str) -> str | None:
        own = self._own.get(name)
        return own.version if own is not None else self._others.get(name, (None, None))[0]

    async def _read(self, name: str) -> None:
        """Put a document's peers into the book."""
        stored = await self._store.load(name)
        peers = [] if stored is None else peer_document.decode(stored.document)
        for peer in peers:
            self._take_up(peer)
        if (own := self._own.get(name)) is not None:
            own.version = stored.version if stored else None
            own.keys |= {peer.key for peer in peers}
        elif stored is not None:
            self._others[name] = (stored.version, max((one.not_after for one in peers), default=self._now()))

    def _take_up(self, peer: Peer) -> None:
        self._book.add(peer)
        if peer.origin:
            self._seen[peer.origin] = max(peer.number, self._seen.get(peer.origin, 0))

    def _forget_ended(self) -> None:
        self._book.forget_ended(self._now() - CLOCK_SKEW)
        alive = {peer.origin for peer in self._book}
        self._seen = {origin: number for origin, number in self._seen.items() if origin in alive | {self._origin}}

    # -- writing ------------------------------------------------------------------------------------------------

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
        """Write the journal with these."""
        placed = self._placed(peers)
        await self._save(self._journal, placed)
        for peer in placed:
            self._take_up(peer)
        if len(self._journal.keys) >= JOURNAL_ENTRIES and self._mover is None:
            self._mover = asyncio.create_task(self._move())

    def _placed(self, peers: list[Peer]) -> list[Peer]:
        """Give those that are new a number, behind everything that is known."""
        number = self._seen.get(self._origin, 0)
        saw = tuple(sorted(known for known in self._seen.items() if known[0] != self._origin))
        placed = []
        for peer in peers:
            if peer.origin or self._book.get(peer.key) is not None:
                placed.append(peer)
            else:
                number += 1
                placed.append(peer.placed(self._origin, number, saw))
        return placed

    async def _save(self, document: _Document, news: Iterable[Peer]) -> None:
        """Write what is in `document` and `news`."""
        added: dict[Key, Peer] = {}
        for peer in news:
            added[peer.key] = peer.merged(added.get(peer.key))
        for _ in range(_ATTEMPTS):
            present = {key: self._book.get(key) for key in document.keys | added.keys()}
            known = {key: peer for key, peer in present.items() if peer is not None}
            content = known | {key: peer.merged(known.get(key)) for key, peer in added.items()}
            try:
                document.version = await self._store.save(
                    document.name, peer_document.encode(content.values()), document.version
                )
            except StoreConflict:
                await self._read(document.name)
                continue
            document.keys.intersection_update(content)  # the others have ended
            document.keys.update(added)
            return
        raise StoreUnavailable("another replica of the same name keeps changing the list of peers; give each its own")

    async def _move(self) -> None:
        """Move what is in the journal into the shards. What is said meanwhile stays in the journal."""
        try:
            moved = {key: peer for key in self._journal.keys if (peer := self._book.get(key)) is not None}
            for number, shard in enumerate(self._shards):
                if news := [peer for peer in moved.values() if _shard_of(peer) == number]:
                    await self._save(shard, news)
            unchanged = {key for key, peer in moved.items() if self._book.get(key) in (peer, None)}
            self._journal.keys.difference_update(unchanged)
        except (StoreUnavailable, UserError) as error:
            # The journal has everything, and the next write tries again.
            _log.warning("the list of peers cannot be put in order, and grows: %s", error)
        finally:
            self._mover = None


def _shard_of(peer: Peer) -> int:
    # Of the instance, so that its certificates stand, and end, together. The same in every process, unlike hash().
    return hashlib.sha256(f"{peer.identity} {peer.instance}".encode()).digest()[0] % SHARDS
