"""Small files in a folder: written whole or not at all, private where they must be, read with care."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mesh.errors import UserError, shown

SECRET_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o700
# A bundle of a hundred roots has about 1 MB; whatever is larger is not one of these files (or has no end: /dev/zero).
_MAX_FILE_SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A file to write: its name within the folder, what it holds, its mode whatever the umask."""

    name: str
    content: bytes = field(repr=False)
    mode: int


def write_files(folder: Path, files: Sequence[File], *, replace: bool) -> None:
    """Write every file under a temporary name; only when all are on disk, rename them in the order given.

    A full disk, a kill or a power cut while bytes are written therefore leaves the old files. A kill or a power cut
    between the renames leaves the first files new and the others old: what is written in such an order, one file twice
    if need be, holds at each of these points. UserError where a file is there already, unless `replace`, and for what
    the system refuses.
    """
    if not replace:
        for file in files:
            if os.path.lexists(folder / file.name):
                raise _exists_already(folder / file.name)
    with _os_errors(folder, "write to"):
        _make_folder(folder)
        with contextlib.ExitStack() as cleanup:
            staged = []
            for file in files:
                target = folder / file.name
                if target.is_dir():
                    raise UserError(f"{shown(target)} is a folder where a file should be; remove it")
                staged.append((_stage(folder, file, cleanup), target))
            for temporary, target in staged:
                _publish(temporary, target, replace=replace)
                # Each by itself: no file system owes us that two renames get to the disk in their order.
                _sync_folder(folder)


def _make_folder(folder: Path) -> None:
    """Make `folder` and the folders above it that are missing, all of them private (mkdir's own are not)."""
    if folder.is_dir():
        return
    if os.path.lexists(folder):
        raise UserError(f"{shown(folder)} is no folder; give a folder, or the name of a new one")
    _make_folder(folder.parent)
    folder.mkdir(mode=_FOLDER_MODE)


def _stage(folder: Path, file: File, cleanup: contextlib.ExitStack) -> Path:
    """Write `file` beside its target, with mode 0600 from the first moment, and return the temporary path."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".tmp", dir=folder)
    path = Path(name)
    cleanup.callback(path.unlink, missing_ok=True)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(file.content)
        stream.flush()
        os.fchmod(descriptor, file.mode)
        _give_to_folder_owner(descriptor, folder)
        os.fsync(descriptor)
    return path


def _give_to_folder_owner(descriptor: int, folder: Path) -> None:
    """Root may renew what belongs to a sidecar's user: the key at mode 0600 must stay readable for it."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _publish(temporary: Path, target: Path, *, replace: bool) -> None:
    if replace:
        temporary.replace(target)
        return
    try:
        # Unlike rename, link refuses to take the place of a file that another process made meanwhile.
        target.hardlink_to(temporary)
    except FileExistsError:
        raise _exists_already(target) from None


def _exists_already(path: Path) -> UserError:
    return UserError(f"{shown(path)} exists already; use another folder, or --force to replace what is there")


def _sync_folder(folder: Path) -> None:
    """Make the last rename outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path, *, secret: bool = False, limit: int = _MAX_FILE_SIZE) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes (1 MiB), or raise UserError.

    A `secret` that every user may read is refused and not warned of: a warning is seen once and the key stays open for
    ever. The group is let pass: Kubernetes gives a Secret to a container that is not root by its group (fsGroup).
    """
    # O_NONBLOCK: a named pipe in the file's place must not make us wait for a writer.
    with _os_errors(path, "read"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{shown(path)} is no regular file; give a file in PEM form")
            if secret and status.st_mode & stat.S_IRWXO:
                raise UserError(f"{shown(path)} is a secret that every user may read; run: chmod 600 {shown(path)}")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                content = stream.read(limit + 1)
        finally:
            os.close(descriptor)
    if len(content) > limit:
        raise UserError(f"{shown(path)} has more than {limit} bytes; give a file in PEM form")
    return content


@contextlib.contextmanager
def _os_errors(path: Path, action: str) -> Iterator[None]:
    """Turn what the operating system says of a path into one line for its user."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{_place(error, path)} does not exist; check the path, or make it with `qbitel ca`") from None
    except PermissionError as error:
        raise UserError(
            f"no permission to {action} {_place(error, path)}; change its owner or mode, or the user"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot {action} {_place(error, path)}: {error.strerror or error}; use another place"
        ) from None


def _place(error: OSError, path: Path) -> str:
    """The path that the error is about; instead of a temporary name, which helps nobody, its folder."""
    named = Path(os.fsdecode(error.filename)) if error.filename is not None else path
    return shown(path if named.suffix == ".tmp" else named)
