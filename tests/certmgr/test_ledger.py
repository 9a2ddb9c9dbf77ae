"""The list of peers of one replica: one write for many, nobody lost by a conflict, the dead forgotten."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest

from certmgr.folder_store import FolderStore
from certmgr.ledger import Ledger
from certmgr.peers import Peer
from certmgr.store import StoreUnavailable
from tests.certmgr.authority_rig import Clock, run


def peer(clock: Clock, instance: str, hours: int = 24) -> Peer:
    return Peer(
        identity="spiffe://cluster.local/ns/shop/sa/web",
        instance=instance,
        generation="ab" * 8,
        serial="1f",
        issued_at=clock(),
        not_after=clock() + datetime.timedelta(hours=hours),
        acknowledged="",
        acknowledged_at=clock(),
    )


async def nothing() -> None:
    pass


def ledger(folder: Path, clock: Clock, replica: str = "one") -> Ledger:
    return Ledger(FolderStore(folder), replica, now=clock, after_write=nothing)


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
        assert len(await first.everyone()) == 20

    run(main())


def test_what_a_write_fails_with_is_said_to_all_who_wait_for_it_and_the_next_one_is_tried_anew(tmp_path: Path) -> None:
    clock = Clock()
    fails = [True]

    async def check() -> None:
        if fails:
            raise StoreUnavailable("away")

    async def main() -> None:
        one = Ledger(FolderStore(tmp_path), "one", now=clock, after_write=check)
        outcomes = await asyncio.gather(
            *(one.record(peer(clock, f"{number}")) for number in range(3)), return_exceptions=True
        )
        assert [str(each) for each in outcomes] == ["away"] * 3
        fails.clear()
        await one.record(peer(clock, "3"))

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
        clock.move(hours=1)
        await here.forget_ended()
        assert await FolderStore(tmp_path).names() == ["peers-gone", "peers-here"]
        clock.move(hours=2)
        await here.forget_ended()
        assert await FolderStore(tmp_path).names() == ["peers-here"]
        assert [one.instance for one in await here.everyone()] == ["2"]

    run(main())
