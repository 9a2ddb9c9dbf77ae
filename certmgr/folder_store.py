"""A folder as the store: one file per document, whole or not at all, changed under a lock.

    authority.state   peers-….state   .lock

A file is one line, `qbitel-store 1 <version>`, and the document behind it. All writers of a folder, the command line
among them, hold the lock for the few milliseconds of a change; the kernel takes it from a process that dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from certmgr.storage import SECRET_MODE, File, read_file, write_files
from certmgr.store import MAX_DOCUMENT, StoreConflict, Stored, StoreUnavailable
from mesh.errors import UserError, shown

SUFFIX: Final = ".state"
_LOCK_FILE: Final = ".lock"
_HEADER: Final = re.compile(rb"qbitel-store 1 ([0-9a-f]{32})\n")
_HEADER_SIZE: Final = len(b"qbitel-store 1 ") + 32 + 1
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,98}[a-z0-9])?\Z")
# Of others' changes, which take milliseconds each; whoever waits longer finds a disk that hangs.
_LOCK_SECONDS: Final = 10.0
_LOCK_POLL_SECONDS: Final = 0.005
# How soon a change by another process is seen: one stat() call each time.
_WATCH_SECONDS: Final = 0.25
# What passes by itself, or by what somebody does elsewhere: room on a disk or in a quota, a disk's hiccup, descriptors
# and memory of this machine, and (the last four) a server of a network's file system that restarts or is away. Not a
# file system that the kernel made read-only after an error (EROFS), nor modes and owners: those are for an operator to
# mend, who is told so.
_PASSING: Final = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EBUSY,
        errno.ENOLCK,
    }
)

_Result = TypeVar("_Result")


class FolderStore:
    """Documents in `folder`, which is made with mode 0700 at the first save. A certmgr.store.Store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Writers of this process take turns, first come, first served. The kernel's lock knows no turns: who writes
        # seventeen documents in a row would keep somebody with one waiting for all of them.
        self._turn = asyncio.Lock()

    async def load(self, name: str) -> Stored | None:
        """See Store.load."""
        return await _in_thread(lambda: self._load(name))

    async def save(self, name: str, document: bytes, expected: str | None) -> str:
        """See Store.save."""
        return await self._in_turn(lambda deadline: self._save(name, document, expected, deadline))

    async def delete(self, name: str, expected: str) -> None:
        """See Store.delete."""
        await self._in_turn(lambda deadline: self._delete(name, expected, deadline))

    async def names(self) -> Sequence[str]:
        """See Store.names."""
        return await _in_thread(self._names)

    async def versions(self) -> Mapping[str, str]:
        """See Store.versions."""
        return await _in_thread(self._versions)

    async def changed(self, name: str, version: str | None) -> None:
        """See Store.changed."""
        seen = None
        while True:
            # Compared before it is read: most of the time nothing has changed, and reading is a megabyte.
            if (signature := await _in_thread(lambda: self._signature(name))) != seen or seen is None:
                stored = await self.load(name)
                if (stored.version if stored else None) != version:
                    return
                seen = signature
            await asyncio.sleep(_WATCH_SECONDS)

    async def _in_turn(self, change: Callable[[float], _Result]) -> _Result:
        """Run `change` when it is its turn. Its argument is when it has waited for long enough, in time.monotonic()."""
        deadline = time.monotonic() + _LOCK_SECONDS
        try:
            async with asyncio.timeout(_LOCK_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise self._locked_by_another() from None
        try:
            return await _in_thread(lambda: change(deadline))
        finally:
            self._turn.release()

    def _load(self, name: str) -> Stored | None:
        path = self._path(name)
        try:
            with _passing_told():
                content = read_file(path, secret=True)
        except UserError:
            # Asked afterwards: it may have been deleted between any question before and the reading.
            if not os.path.lexists(path):
                return None
            raise
        header = _HEADER.match(content)
        if header is None:
            raise UserError(f"{shown(path)} is no document of this store; restore it from a backup, or remove it")
        return Stored(content[header.end() :], header[1].decode())

    def _save(self, name: str, document: bytes, expected: str | None, deadline: float) -> str:
        if len(document) > MAX_DOCUMENT:
            raise UserError(f"the document {name!r} would have {len(document)} bytes; a store keeps {MAX_DOCUMENT}")
        path = self._path(name)
        if expected is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Else it must be there: one that is gone was moved away or unmounted, and what would be written in its place
        # would be lost to all others.
        with self._lock(deadline):
            self._expect(name, expected)
            self._sweep()
            version = secrets.token_hex(16)
            content = b"qbitel-store 1 " + version.encode() + b"\n" + document
            with _passing_told():
                write_files(self._folder, [File(path.name, content, SECRET_MODE)], replace=True)
        return version

    def _delete(self, name: str, expected: str, deadline: float) -> None:
        path = self._path(name)
        if not os.path.lexists(path):
            return
        with self._lock(deadline):
            stored = self._load(name)
            if stored is None:
                return
            if stored.version != expected:
                raise StoreConflict(name)
            path.unlink()

    def _names(self) -> list[str]:
        try:
            found = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        names = (entry.removesuffix(SUFFIX) for entry in found if entry.endswith(SUFFIX))
        return sorted(name for name in names if _NAME.match(name))

    def _versions(self) -> dict[str, str]:
        return {name: stored.version for name in self._names() if (stored := self._load(name)) is not None}

    def _path(self, name: str) -> Path:
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is no name of a document")
        return self._folder / (name + SUFFIX)

    def _signature(self, name: str) -> tuple[int, int, int] | None:
        try:
            status = self._path(name).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _expect(self, name: str, expected: str | None) -> None:
        stored = self._load(name)
        if (stored.version if stored else None) != expected:
            raise StoreConflict(name)

    def _sweep(self) -> None:
        """Remove what writers left behind that were killed: with the lock held, no temporary file is anybody's."""
        for path in self._folder.iterdir():
            if path.name.startswith(".") and path.name.endswith(".tmp") and f"{SUFFIX}." in path.name:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self, deadline: float) -> Iterator[None]:
        """Hold the folder's lock, or raise StoreUnavailable where nobody gives it back until `deadline`.

        It is a file of its own, because the documents are replaced by rename.
        """
        descriptor = os.open(self._folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE)
        try:
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise self._locked_by_another()
                time.sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _locked_by_another(self) -> StoreUnavailable:
        return StoreUnavailable(f"another process holds the lock of {shown(self._folder)} and does not end")


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Run what waits for a disk or a lock off the loop, and tell what passes from what somebody must mend.

    A caller that is cancelled does not undo a change that is under way: it is finished in its thread.
    """
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise _refusal(error) from None


@contextlib.contextmanager
def _passing_told() -> Iterator[None]:
    """Make StoreUnavailable of a UserError about what passes: storage.py has the words, the system's error the fact."""
    try:
        yield
    except UserError as error:
        if isinstance(error.__context__, OSError) and error.__context__.errno in _PASSING:
            raise StoreUnavailable(str(error)) from None
        raise


def _refusal(error: OSError) -> Exception:
    message = f"{shown(error.filename or 'the store')}: {error.strerror or error}"
    return StoreUnavailable(message) if error.errno in _PASSING else UserError(message)
