"""A folder as the store: compare-and-swap between processes, and nothing lost however a writer ends."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from certmgr import folder_store
from certmgr.folder_store import FolderStore
from certmgr.store import AUTHORITY_DOCUMENT, MAX_DOCUMENT, StoreConflict, StoreUnavailable
from mesh.errors import UserError

_T = TypeVar("_T")
PATIENCE = 60.0  # seconds that anything here may take on a slow machine


def run(work: Coroutine[Any, Any, _T]) -> _T:
    async def limited() -> _T:
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(limited())


def document(store: FolderStore, name: str = AUTHORITY_DOCUMENT) -> bytes | None:
    stored = run(store.load(name))
    return stored.document if stored else None


def test_a_document_comes_back_as_it_was_saved_with_the_version_that_save_told(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "ca")
    content = bytes(range(256)) + b"\nqbitel-store 1 x\n"

    assert run(store.load(AUTHORITY_DOCUMENT)) is None
    version = run(store.save(AUTHORITY_DOCUMENT, content, None))
    stored = run(store.load(AUTHORITY_DOCUMENT))

    assert stored is not None
    assert (stored.document, stored.version) == (content, version)
    assert run(store.names()) == [AUTHORITY_DOCUMENT]


def test_the_folder_and_its_files_are_private(tmp_path: Path) -> None:
    run(FolderStore(tmp_path / "ca").save(AUTHORITY_DOCUMENT, b"1", None))

    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ca").iterdir()}
    assert modes == {"authority.state": 0o600, ".lock": 0o600}


def test_a_change_that_was_made_from_another_version_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = run(store.save("authority", b"1", None))
    second = run(store.save("authority", b"2", first))

    for expected in (None, first, "0" * 32):
        with pytest.raises(StoreConflict):
            run(store.save("authority", b"3", expected))
        if expected:
            with pytest.raises(StoreConflict):
                run(store.delete("authority", expected))
    assert document(store) == b"2"
    run(store.delete("authority", second))
    run(store.delete("authority", second))
    assert document(store) is None
    with pytest.raises(StoreConflict):
        run(store.save("authority", b"3", second))


def test_a_change_and_its_undoing_are_two_changes(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = run(store.save("authority", b"1", None))
    second = run(store.save("authority", b"2", first))
    third = run(store.save("authority", b"1", second))

    assert len({first, second, third}) == 3
    with pytest.raises(StoreConflict):
        run(store.save("authority", b"x", first))


def test_a_watcher_hears_of_another_process_change_and_of_none_before(tmp_path: Path) -> None:
    async def main() -> None:
        store, other = FolderStore(tmp_path), FolderStore(tmp_path)
        version = await store.save("authority", b"1", None)
        watching = asyncio.create_task(store.changed("authority", version))
        done, _ = await asyncio.wait([watching], timeout=1)
        assert not done
        await other.save("authority", b"2", version)
        await watching
        await store.changed("authority", version)  # at once, where the change is past already
        await store.changed("peers-x", "0" * 32)
        gone = asyncio.create_task(store.changed("authority", (await store.load("authority")).version))  # type: ignore[union-attr]
        await other.delete("authority", (await store.load("authority")).version)  # type: ignore[union-attr]
        await gone

    run(main())


def test_two_processes_that_count_together_lose_nothing(tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        from pathlib import Path
        from certmgr.folder_store import FolderStore
        from certmgr.store import StoreConflict
        async def main():
            store = FolderStore(Path(sys.argv[1]))
            for _ in range(40):
                while True:
                    stored = await store.load("authority")
                    try:
                        number = int(stored.document) if stored else 0
                        await store.save("authority", str(number + 1).encode(), stored and stored.version)
                        break
                    except StoreConflict:
                        pass
        asyncio.run(main())
    """
    words = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "ca")]
    processes = [subprocess.Popen(words) for _ in range(2)]

    assert [process.wait(PATIENCE) for process in processes] == [0, 0]
    assert document(FolderStore(tmp_path / "ca")) == b"80"


def test_what_was_saved_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        from pathlib import Path
        from certmgr.folder_store import FolderStore
        async def main():
            store = FolderStore(Path(sys.argv[1]))
            stored = await store.load("authority")
            number, version = (int(stored.document.split()[0]), stored.version) if stored else (0, None)
            while True:
                number += 1
                version = await store.save("authority", b"%d " % number + b"x" * 50_000, version)
                print(number, flush=True)
        asyncio.run(main())
    """
    saved = 0
    for round_ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), tmp_path], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process:
            for _ in range(1 + 5 * round_):
                saved = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                saved = int(line) if line.endswith("\n") else saved
        there = document(FolderStore(tmp_path))
        assert there is not None
        number, filling = there.split()
        # One more may have been saved before the kill came in front of the message.
        assert int(number) in (saved, saved + 1)
        assert filling == b"x" * 50_000


# Each call with which a writer can die: before it (the file is not there yet) and after it.
DEADLY = ["mkstemp", "fchmod", "fsync", "replace", "flock"]


@pytest.mark.parametrize("call", DEADLY)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_that_dies_within_a_save_leaves_the_old_or_the_new_and_nothing_in_the_way(
    tmp_path: Path, call: str, when: str
) -> None:
    store = FolderStore(tmp_path)
    version = run(store.save("authority", b"old", None))
    script = """
        import asyncio, fcntl, os, pathlib, sys, tempfile
        from certmgr.folder_store import FolderStore
        call, when, folder, version = sys.argv[1:]
        owner = {"mkstemp": tempfile, "replace": pathlib.Path, "flock": fcntl}.get(call, os)
        original = getattr(owner, call)
        def deadly(*words, **named):
            if when == "after":
                original(*words, **named)
            os._exit(9)
        setattr(owner, call, deadly)
        asyncio.run(FolderStore(pathlib.Path(folder)).save("authority", b"new", version))
    """
    words = [sys.executable, "-c", textwrap.dedent(script), call, when, str(tmp_path), version]
    assert subprocess.run(words, check=False, timeout=PATIENCE).returncode == 9

    stored = run(store.load("authority"))
    assert stored is not None
    assert stored.document in (b"old", b"new")
    run(store.save("authority", b"newer", stored.version))
    assert document(store) == b"newer"
    assert {path.name for path in tmp_path.iterdir()} == {"authority.state", ".lock"}


def test_a_lock_that_is_never_given_back_is_said_instead_of_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_store, "_LOCK_SECONDS", 0.1)
    store = FolderStore(tmp_path)
    run(store.save("authority", b"1", None))
    with (tmp_path / ".lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="holds the lock"):
            run(store.save("authority", b"2", None))
        assert document(store) == b"1"  # reading needs no lock


def test_who_waits_behind_others_for_a_lock_that_is_never_given_back_waits_no_longer_than_they(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    run(store.save("first", b"1", None))
    monkeypatch.setattr(folder_store, "_LOCK_SECONDS", 0.5)

    async def main() -> None:
        waiting = [store.save(f"d{number}", b"", None) for number in range(200)]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StoreUnavailable)

    with (tmp_path / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(main())  # one after another, they would take 100 s, and run() gives them 60
    run(store.save("second", b"2", None))


def test_a_writer_of_many_documents_keeps_nobody_with_one_waiting_for_all_of_them(tmp_path: Path) -> None:
    store, done = FolderStore(tmp_path), []

    async def save(name: str) -> None:
        await store.save(name, b"", None)
        done.append(name)

    async def save_many() -> None:
        for number in range(5):
            await save(f"shard{number}")

    async def main() -> None:
        many = asyncio.create_task(save_many())
        await asyncio.sleep(0)  # it is under way
        await asyncio.gather(many, save("journal"))

    run(main())
    assert done[1] == "journal"


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    store = FolderStore(folder)
    version = run(store.save(AUTHORITY_DOCUMENT, b"1", None))
    folder.rename(tmp_path / "elsewhere")

    with pytest.raises(UserError, match="No such file or directory"):
        run(store.save(AUTHORITY_DOCUMENT, b"2", version))
    assert not folder.exists()


def test_a_full_disk_is_worth_another_try_and_keeps_the_old_document(tmp_path: Path) -> None:
    script = """
        import asyncio, resource, signal, sys
        from pathlib import Path
        from certmgr.folder_store import FolderStore
        from certmgr.store import StoreUnavailable
        store = FolderStore(Path(sys.argv[1]))
        version = asyncio.run(store.save("authority", b"old", None))
        import tempfile, errno
        def full(*words, **named):
            raise OSError(errno.ENOSPC, "No space left on device")
        tempfile.mkstemp = full
        try:
            asyncio.run(store.save("authority", b"new", version))
        except StoreUnavailable as error:
            print(error)
        print(asyncio.run(store.load("authority")).document)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path], capture_output=True, text=True, check=True
    )
    message, old = done.stdout.splitlines()
    assert "No space left on device" in message
    assert old == "b'old'"


PASSING = ["ENOSPC", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ETIMEDOUT", "EBUSY", "ENOLCK"]
LASTING = ["EROFS", "EACCES", "ENOTDIR", "ELOOP"]


@pytest.mark.parametrize("name", PASSING + LASTING)
@pytest.mark.parametrize("call", ["open", "mkstemp", "flock"])
def test_what_passes_by_itself_is_worth_another_try_and_all_else_is_for_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    store = FolderStore(tmp_path)
    version = run(store.save("authority", b"old", None))
    number = getattr(errno, name)

    def failing(*_words: object, **_named: object) -> object:
        raise OSError(number, os.strerror(number), str(tmp_path))

    owner = {"open": os, "mkstemp": tempfile, "flock": fcntl}[call]
    with monkeypatch.context() as broken:
        broken.setattr(owner, call, failing)
        with pytest.raises(StoreUnavailable if name in PASSING else UserError):
            run(store.save("authority", b"new", version))
    assert document(store) == b"old"


def test_a_document_that_is_deleted_between_two_looks_at_it_is_simply_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    run(store.save("peers-x", b"1", None))
    reading = folder_store.read_file

    def overtaken(path: Path, **named: Any) -> bytes:
        path.unlink()
        return reading(path, **named)

    monkeypatch.setattr(folder_store, "read_file", overtaken)
    assert [run(store.load(name)) for name in run(store.names())] == [None]


def test_a_link_that_leads_nowhere_is_no_missing_document(tmp_path: Path) -> None:
    (tmp_path / "authority.state").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"authority\.state does not exist"):
        run(FolderStore(tmp_path).load("authority"))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"qbitel-store 1 xyz\n{}", b"qbitel-store 2 " + b"0" * 32 + b"\n", b"\0" * 100]
)
def test_a_file_that_is_no_document_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "authority.state"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(UserError, match="is no document of this store; restore it"):
        run(FolderStore(tmp_path).load("authority"))


def test_a_document_that_every_user_may_read_is_refused(tmp_path: Path) -> None:
    run(FolderStore(tmp_path).save("authority", b"1", None))
    (tmp_path / "authority.state").chmod(0o644)

    with pytest.raises(UserError, match="chmod 600"):
        run(FolderStore(tmp_path).load("authority"))


def test_a_document_has_a_largest_size(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    version = run(store.save("authority", bytes(MAX_DOCUMENT), None))
    assert document(store) == bytes(MAX_DOCUMENT)

    with pytest.raises(UserError, match="a store keeps"):
        run(store.save("authority", bytes(MAX_DOCUMENT + 1), version))


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", ".lock", "a\n", "-a", "a" * 101])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a document"):
        run(FolderStore(tmp_path).load(name))


def test_the_documents_of_a_folder_are_listed_and_nothing_else_in_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "ca")
    assert run(store.names()) == []
    for name in ("peers-b-0", "authority", "peers-a-0"):
        run(store.save(name, b"", None))
    for other in ("ca.crt", ".state", "Big.state", ".x.state.1.tmp"):
        (tmp_path / "ca" / other).touch()

    assert run(store.names()) == ["authority", "peers-a-0", "peers-b-0"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_its_owner_s_to_mend(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        run(FolderStore(tmp_path).save("authority", b"1", None))
