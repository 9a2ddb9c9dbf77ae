"""The list of peers of all replicas: one small write for many, nobody lost by a conflict, the dead forgotten."""

from __future__ import annotations

import asyncio
import datetime
import json
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from certmgr import peer_document
from certmgr.folder_store import FolderStore
from certmgr.ledger import JOURNAL_ENTRIES, SHARDS, Ledger
from certmgr.peers import MAX_INSTANCES, Peer
from certmgr.proofs import Refused
from certmgr.store import Stored, StoreUnavailable
from mesh.errors import UserError
from tests.certmgr.authority_rig import Clock, run

WEB = "spiffe://cluster.local/ns/shop/sa/web"
SERIALS = iter(range(1, 1 << 60))


def peer(clock: Clock, instance: str, hours: int = 24) -> Peer:
    return Peer(
        identity=WEB,
        instance=instance,
        generation="ab" * 8,
        serial=f"{next(SERIALS):x}",
        issued_at=clock(),
        not_after=clock() + datetime.timedelta(hours=hours),
    )


class Watched:
    """A folder as a store that counts what is asked of it, and fails where it is told to."""

    def __init__(self, folder: Path) -> None:
        self._store = FolderStore(folder)
        self.saved: list[tuple[str, int]] = []
        self.loaded: list[str] = []
        self.asked = 0
        self.failing: Callable[[str], bool] = lambda _name: False
        self.before_save: Callable[[str], Awaitable[None]] | None = None

    async def load(self, name: str) -> Stored | None:
        self.loaded.append(name)
        return await self._store.load(name)

    async def save(self, name: str, document: bytes, expected: str | None) -> str:
        if self.failing(name):
            raise StoreUnavailable("away")
        if self.before_save is not None:
            await self.before_save(name)
        self.saved.append((name, len(document)))
        return await self._store.save(name, document, expected)

    async def delete(self, name: str, expected: str) -> None:
        await self._store.delete(name, expected)

    async def names(self) -> Sequence[str]:
        return await self._store.names()

    async def versions(self) -> Mapping[str, str]:
        self.asked += 1
        return await self._store.versions()

    async def changed(self, name: str, version: str | None) -> None:
        await self._store.changed(name, version)


async def nothing() -> None:
    pass


def ledger(place: Path | Watched, clock: Clock, replica: str = "one") -> Ledger:
    store = FolderStore(place) if isinstance(place, Path) else place
    return Ledger(store, replica, now=clock, after_write=nothing)


async def record(one: Ledger, peers: Sequence[Peer]) -> None:
    await asyncio.gather(*map(one.record, peers))


async def in_order(one: Ledger) -> None:
    """Until the journal is moved."""
    while (moving := one._mover) is not None:
        await asyncio.wait([moving])


def instances(peers: object) -> set[str]:
    return {one.instance for one in peers}  # type: ignore[attr-defined]


def test_two_that_have_one_name_lose_nobody(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        first, second = ledger(tmp_path, clock), ledger(tmp_path, clock)
        await asyncio.gather(
            *(
                one.record(peer(clock, f"{name}-{number}"))
                for name, one in (("a", first), ("b", second))
                for number in range(5)
            )
        )
        for number in range(5):
            await first.record(peer(clock, f"c-{number}"))
            await second.record(peer(clock, f"d-{number}"))
        for one in (first, second, ledger(tmp_path, clock, "other")):
            assert len(instances(await one.everyone())) == 20

    run(main())


def test_what_a_write_fails_with_is_said_to_all_who_wait_for_it_and_the_next_one_is_tried_anew(tmp_path: Path) -> None:
    clock = Clock()
    store = Watched(tmp_path)

    async def main() -> None:
        one = ledger(store, clock)
        store.failing = lambda _name: True
        outcomes = await asyncio.gather(
            *(one.record(peer(clock, f"{number}")) for number in range(3)), return_exceptions=True
        )
        assert [str(each) for each in outcomes] == ["away"] * 3
        store.failing = lambda _name: False
        await one.record(peer(clock, "3"))
        assert instances(await one.everyone()) == {"3"}  # nobody else has a certificate

    run(main())


def test_what_comes_after_a_write_fails_them_too(tmp_path: Path) -> None:
    clock = Clock()

    async def check() -> None:
        raise StoreUnavailable("the state is away")

    async def main() -> None:
        one = Ledger(FolderStore(tmp_path), "one", now=clock, after_write=check)
        with pytest.raises(StoreUnavailable, match="the state"):
            await one.record(peer(clock, "1"))

    run(main())


def test_whoever_gives_up_waiting_does_not_fail_the_others(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        one = ledger(tmp_path, clock)
        first = asyncio.create_task(one.record(peer(clock, "1")))
        second = asyncio.create_task(one.record(peer(clock, "2")))
        await asyncio.sleep(0)
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first

    run(main())


def test_the_list_of_a_replica_that_is_gone_stays_until_its_last_peer_has_ended(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        gone, here = ledger(tmp_path, clock, "gone"), ledger(tmp_path, clock, "here")
        await gone.record(peer(clock, "1", hours=2))
        await here.record(peer(clock, "2", hours=48))
        clock.move(hours=2)  # a peer's clock may be behind ours
        await here.remove_ended()
        assert await FolderStore(tmp_path).names() == ["peers-gone", "peers-here"]
        clock.move(minutes=10)
        await here.remove_ended()
        assert await FolderStore(tmp_path).names() == ["peers-here"]
        assert instances(await here.everyone()) == {"2"}
        # It was not gone after all, and does not mind.
        await gone.record(peer(clock, "3"))
        assert instances(await here.everyone()) == {"2", "3"}

    run(main())


def test_a_thousand_peers_are_written_by_hundreds_and_none_is_lost_by_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    store = Watched(tmp_path)

    async def main() -> None:
        one = ledger(store, clock)
        every = [peer(clock, f"{number}") for number in range(5 * JOURNAL_ENTRIES // 2)]
        for start in range(0, len(every), 64):
            await record(one, every[start : start + 64])
        await in_order(one)
        names = await store.names()
        assert names == ["peers-one", *(f"peers-one.{shard:02}" for shard in range(SHARDS))]
        documents = [peer_document.decode((await FolderStore(tmp_path).load(name)).document) for name in names]  # type: ignore[union-attr]
        shards = sum(map(len, documents[1:]))
        assert shards >= JOURNAL_ENTRIES  # and what came while these were moved, which takes turns with it
        assert min(map(len, documents[1:])) > 0.5 * shards / SHARDS
        # Each write is a part of the whole: a full journal and what comes while it is moved.
        assert max(size for _, size in store.saved) < 3 * 70 * JOURNAL_ENTRIES
        for again in (ledger(tmp_path, clock), ledger(tmp_path, clock, "two")):
            await again.open()
            assert instances(await again.everyone()) == instances(every)
        assert len(one) == len(every)

    run(main())


def test_only_shards_of_whom_something_is_new_are_written(tmp_path: Path) -> None:
    clock = Clock()
    store = Watched(tmp_path)

    async def main() -> None:
        one = ledger(store, clock)
        await record(one, [peer(clock, "the-same")] + [peer(clock, f"{n}") for n in range(JOURNAL_ENTRIES)])
        await in_order(one)
        known = await one.find(WEB, "the-same", "")
        assert known is not None
        store.saved.clear()
        await record(one, [known.acknowledging(1)])
        assert [name for name, _ in store.saved] == ["peers-one"]
        store.saved.clear()
        await record(one, [peer(clock, "", hours=24) for _ in range(JOURNAL_ENTRIES)])
        await in_order(one)
        assert len({name for name, _ in store.saved}) <= 3  # the journal, the unnamed and who acknowledged

    run(main())


def test_what_is_said_while_the_journal_is_moved_is_in_the_next_one(tmp_path: Path) -> None:
    clock = Clock()
    store = Watched(tmp_path)

    async def main() -> None:
        one = ledger(store, clock)
        every = [peer(clock, f"{number}") for number in range(JOURNAL_ENTRIES)]
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def hold(name: str) -> None:
            if name.endswith(f".{SHARDS - 1:02}"):  # all the others are written
                reached.set()
                await go_on.wait()

        store.before_save = hold
        await record(one, every)
        await reached.wait()
        known = [await one.find(WEB, each.instance, each.serial) for each in every[:40]]
        await record(one, [each.acknowledging(7) for each in known if each is not None])
        await record(one, [peer(clock, "late")])
        go_on.set()
        await in_order(one)
        await record(one, [peer(clock, "later")])
        again = ledger(tmp_path, clock, "again")
        found = {each.instance: each.acknowledged for each in await again.everyone()}
        assert found == {each.instance: 7 if each in every[:40] else 0 for each in every} | {"late": 0, "later": 0}

    run(main())


def test_a_journal_that_cannot_be_moved_grows_until_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    store = Watched(tmp_path)

    async def main() -> None:
        one = ledger(store, clock)
        store.failing = lambda name: "." in name
        every = [peer(clock, f"{number}") for number in range(JOURNAL_ENTRIES + 1)]
        await record(one, every[:-1])
        await in_order(one)
        assert "cannot be put in order" in caplog.text
        assert await store.names() == ["peers-one"]
        store.failing = lambda _name: False
        await record(one, every[-1:])
        await in_order(one)
        assert len(await store.names()) == 1 + SHARDS
        assert instances(await ledger(tmp_path, clock).everyone()) == instances(every)

    run(main())


def test_a_list_of_the_version_before_is_taken_up_and_written_anew(tmp_path: Path) -> None:
    clock = Clock()
    end = int((clock() + datetime.timedelta(hours=1)).timestamp()) * 1_000_000
    old = {
        "version": 1, "identity": [WEB], "instance": ["old"], "generation": ["ab"], "serial": ["1"], "issued": [1],
        "not_after": [end], "acknowledged": [""], "at": [2],
    }  # fmt: skip

    async def main() -> None:
        document = zlib.compress(json.dumps(old).encode())
        await FolderStore(tmp_path).save("peers-one", document, None)
        one = ledger(tmp_path, clock)
        await one.open()
        await record(one, [peer(clock, "new")])
        again = ledger(tmp_path, clock, "again")
        assert instances(await again.everyone()) == {"old", "new"}

    run(main())


def test_only_what_has_changed_is_read_again(tmp_path: Path) -> None:
    clock = Clock()
    store = Watched(tmp_path)

    async def main() -> None:
        one, two = ledger(tmp_path, clock), ledger(store, clock, "two")
        await record(one, [peer(clock, f"{n}") for n in range(JOURNAL_ENTRIES)])
        await in_order(one)
        await two.everyone()
        store.loaded.clear()
        await two.everyone()
        assert store.loaded == []
        await record(one, [peer(clock, "more")])
        assert "more" in instances(await two.everyone())
        assert store.loaded == ["peers-one"]
        more = await two.find(WEB, "more", "")
        assert more is not None
        asked = store.asked
        assert await two.find(WEB, "more", more.serial) == more
        # Whoever calls itself by another name each time must not make us read each time.
        assert await two.find(WEB, "other", more.serial) is None
        assert store.asked == asked

    run(main())


def test_who_asks_for_everyone_waits_for_a_reading_that_begins_later(tmp_path: Path) -> None:
    """One that has begun already may have passed over what was written since; many who wait share the next."""
    clock = Clock()
    store = Watched(tmp_path)

    async def main() -> None:
        one, two = ledger(tmp_path, clock), ledger(store, clock, "two")
        versions, began, go_on, readings = store.versions, asyncio.Event(), asyncio.Event(), 0

        async def slow() -> Mapping[str, str]:
            nonlocal readings
            readings += 1
            found = await versions()
            began.set()
            await go_on.wait()
            return found

        store.versions = slow  # type: ignore[method-assign]
        early = asyncio.create_task(two.everyone())
        await began.wait()
        await record(one, [peer(clock, "since")])
        late = [asyncio.create_task(two.everyone()) for _ in range(10)]
        await asyncio.sleep(0)
        go_on.set()
        await early
        for each in await asyncio.gather(*late):
            assert instances(each) == {"since"}
        assert readings == 2

    run(main())


def test_the_bound_on_instances_counts_those_of_all_replicas(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        one, two = ledger(tmp_path, clock), ledger(tmp_path, clock, "two")
        await record(one, [peer(clock, f"{n}") for n in range(MAX_INSTANCES)])
        two.check_room(WEB, "another")
        await two.refresh()
        with pytest.raises(Refused, match="1000 instances"):
            two.check_room(WEB, "another")
        clock.move(hours=25)
        await two.refresh()
        two.check_room(WEB, "another")

    run(main())


def test_a_list_of_another_replica_that_is_damaged_stops_who_asks_for_everyone_and_nothing_else(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        await FolderStore(tmp_path).save("peers-other", b"broken", None)
        with pytest.raises(UserError, match="restore it from a backup"):
            await ledger(tmp_path, clock).everyone()
        # Certificates are issued all the same; what cannot be read of our own would be written over.
        one = ledger(tmp_path, clock)
        await one.open()
        await record(one, [peer(clock, "1")])
        with pytest.raises(UserError, match="restore it from a backup"):
            await ledger(tmp_path, clock, "other").open()

    run(main())
