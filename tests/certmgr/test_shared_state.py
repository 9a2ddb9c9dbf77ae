"""What replicas share by a store: each finds the others' changes, and nobody's is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from certmgr.barring import bar
from certmgr.folder_store import FolderStore
from certmgr.revocation import sign_lists
from certmgr.shared_state import SharedState
from certmgr.state import AuthorityState
from certmgr.store import AUTHORITY_DOCUMENT, StoreConflict, StoreUnavailable
from mesh.errors import UserError
from tests.certmgr.authority_rig import Clock, found, proven, run


def barring(name: str, clock: Clock) -> Callable[[AuthorityState], AuthorityState]:
    return lambda state: bar(state, proven(name).spiffe_id, clock())


def barred(state: SharedState) -> set[str]:
    return {str(one.spiffe_id).rpartition("/")[2] for one in state.present.barred}


async def opened(folder: Path, clock: Clock) -> SharedState:
    return await SharedState.open(await found(folder, clock))


def test_a_store_without_an_authority_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="qbitel ca init"):
        run(SharedState.open(FolderStore(tmp_path)))


def test_changes_of_two_replicas_are_both_kept(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        one = await opened(tmp_path, clock)
        two = await SharedState.open(FolderStore(tmp_path))
        assert await one.change(barring("web", clock))
        assert barred(two) == set()
        assert await two.change(barring("db", clock))
        assert barred(two) == {"web", "db"}
        await one.confirm()
        assert barred(one) == {"web", "db"}

    run(main())


def test_what_changes_nothing_is_not_written(tmp_path: Path) -> None:
    async def main() -> None:
        state = await opened(tmp_path, Clock())
        stored = await FolderStore(tmp_path).load(AUTHORITY_DOCUMENT)
        assert not await state.change(lambda _state: None)
        assert not await state.change(lambda state: state)
        assert await FolderStore(tmp_path).load(AUTHORITY_DOCUMENT) == stored

    run(main())


def test_a_change_that_is_refused_leaves_everything_as_it_was(tmp_path: Path) -> None:
    def refuse(_state: AuthorityState) -> AuthorityState:
        raise ZeroDivisionError

    async def main() -> None:
        state = await opened(tmp_path, Clock())
        before = state.present
        with pytest.raises(ZeroDivisionError):
            await state.change(refuse)
        assert state.present is before
        await state.confirm()

    run(main())


def test_who_loses_every_race_is_told_so(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        state = await opened(tmp_path, clock)
        tries = 0

        async def conflict(*_arguments: Any) -> str:
            nonlocal tries
            tries += 1
            raise StoreConflict

        state._store.save = conflict  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable, match="changed by others all the time"):
            await state.change(barring("web", clock))
        assert tries == 8
        assert barred(state) == set()

    run(main())


def test_others_changes_are_followed_and_whoever_waits_for_a_bundle_gets_it(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        state = await opened(tmp_path, clock)
        other = await SharedState.open(FolderStore(tmp_path))
        following = asyncio.create_task(state.follow())
        before = state.bundle
        waiting = asyncio.create_task(state.next_bundle(before.etag))
        await other.change(lambda state: sign_lists(state, clock()))
        assert (await waiting).etag == other.bundle.etag != before.etag
        assert (await state.next_bundle(before.etag)) is state.bundle
        following.cancel()
        await asyncio.wait([following])

    run(main())


def test_a_store_that_fails_leaves_what_is_known_in_use_and_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr("certmgr.shared_state._STORE_PAUSE", 0.01)

    async def main() -> None:
        state = await opened(tmp_path, clock)
        changed = state._store.changed
        failures = 3

        async def failing(name: str, version: str | None) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise StoreUnavailable("away")
            await changed(name, version)

        state._store.changed = failing  # type: ignore[method-assign]
        following = asyncio.create_task(state.follow())
        before = state.bundle.etag
        other = await SharedState.open(FolderStore(tmp_path))
        await other.change(lambda state: sign_lists(state, clock()))
        assert (await state.next_bundle(before)).etag == other.bundle.etag
        following.cancel()
        await asyncio.wait([following])

    run(main())
    assert caplog.text.count("what is known stays in use: away") == 3


def test_a_state_that_has_gone_is_an_error_and_no_empty_authority(tmp_path: Path) -> None:
    async def main() -> None:
        state = await opened(tmp_path, Clock())
        (tmp_path / "authority.state").unlink()
        with pytest.raises(StoreUnavailable, match="restore it"):
            await state.confirm()
        assert state.bundle.files

    run(main())


def test_an_answer_of_the_store_that_is_overtaken_does_not_undo_a_newer_one(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        state = await opened(tmp_path, clock)
        load = state._store.load
        delayed, go_on = asyncio.Event(), asyncio.Event()

        async def slow(name: str) -> Any:
            stored = await load(name)
            delayed.set()
            await go_on.wait()
            return stored

        state._store.load = slow  # type: ignore[method-assign]
        confirming = asyncio.create_task(state.confirm())
        await delayed.wait()
        changing = asyncio.create_task(state.change(barring("web", clock)))
        await asyncio.wait([changing], timeout=0.2)  # it waits for the answer that is under way
        go_on.set()
        await asyncio.gather(confirming, changing)
        assert barred(state) == {"web"}

    run(main())
