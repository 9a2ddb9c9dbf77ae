"""The append-only audit log: who got which certificate, who was refused and why, what was done to the authority."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from certmgr.storage import SECRET_MODE
from certmgr.store import StoreUnavailable
from mesh.errors import UserError, shown

# One event: JSON's types only, "time" (RFC 3339) and "event" always among the keys. Never a secret.
Entry = Mapping[str, Any]

_READ_SIZE: Final = 64 * 1024
# Of what is read back: an entry of ours has some 300 bytes, and at most a few thousand.
_LONGEST_LINE: Final = 64 * 1024


class Journal(Protocol):
    """Where the audit log goes."""

    async def append(self, entry: Entry) -> None:
        """Return when `entry` is kept. Raises StoreUnavailable: what cannot be written down must not happen."""
        ...


class LineJournal:
    """A Journal of one JSON object per line. `write` keeps whole lines, in a thread, and raises OSError.

    While it is at work, further entries gather; they are written together next, so that a hundred certificates at
    once cost one fsync.
    """

    def __init__(self, write: Callable[[bytes], None], name: str) -> None:
        self._write = write
        self._name = name
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def append(self, entry: Entry) -> None:
        """See Journal.append."""
        line = json.dumps(entry, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append((line, kept))
        if self._writer is None:
            # It is no child of who happened to come first: cancelling that one must not fail the others.
            self._writer = asyncio.create_task(self._write_all())
        await kept

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._write_batch(batch)
        finally:
            self._writer = None

    async def _write_batch(self, batch: list[tuple[bytes, asyncio.Future[None]]]) -> None:
        failure: StoreUnavailable | None = None
        try:
            await asyncio.to_thread(self._write, b"".join(line for line, _ in batch))
        except (OSError, ValueError) as error:  # ValueError: a stream that was closed
            reason = getattr(error, "strerror", None) or error
            failure = StoreUnavailable(f"the audit log {self._name} cannot be written: {reason}")
        for _, kept in batch:
            if kept.done():  # whoever asked was cancelled meanwhile
                continue
            if failure is None:
                kept.set_result(None)
            else:
                kept.set_exception(failure)


def file_journal(path: Path) -> LineJournal:
    """A journal in the file `path` (made with mode 0600), which outlives a power cut; UserError where it cannot be.

    A last line that a crash cut short, of this process or of another that writes here too, is removed before the next
    entry: nobody was told that it was kept. The file may be moved away at any time (log rotation): the next entry goes
    into a new one.
    """
    file = _AppendOnly(path)
    try:
        file.repair()
    except OSError as error:
        raise UserError(f"the audit log {shown(path)} cannot be used: {error.strerror}; use another place") from None
    return LineJournal(file.append, shown(path))


def stream_journal(descriptor: int) -> LineJournal:
    """A journal on a descriptor that somebody else collects, such as a container's standard output."""
    return LineJournal(lambda lines: _write_whole(descriptor, lines), f"on descriptor {descriptor}")


def read_journal(path: Path) -> Iterator[Entry]:
    """The entries of the file `path`, one after the other; what is no entry is passed over, as somebody who collects a
    stream has other lines in it too. UserError where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                with contextlib.suppress(ValueError, RecursionError):
                    entry = json.loads(line)
                    if isinstance(entry, dict):
                        yield entry
    except OSError as error:
        raise UserError(f"the audit log {shown(path)} cannot be read: {error.strerror}; check its name") from None


class _AppendOnly:
    """A file of lines that several processes may append to: under its lock, whole batches or nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, lines: bytes) -> None:
        with self._locked() as descriptor:
            end = _cut_torn_line(descriptor)
            try:
                _write_whole(descriptor, lines)
                os.fsync(descriptor)
            except OSError:
                # A disk that is full takes a part: the rest of the line would never come.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, end)
                raise

    def repair(self) -> None:
        """Cut off what stands behind the last line's end."""
        with self._locked() as descriptor:
            _cut_torn_line(descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        # Opened anew each time: it costs microseconds beside an fsync, and a file that was moved away is let go.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, SECRET_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _cut_torn_line(descriptor: int) -> int:
    """Cut off what stands behind the last line's end; return the file's size then. The lock is held."""
    end = size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    while end > 0:
        start = max(0, end - _READ_SIZE)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
    return end


def _write_whole(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
