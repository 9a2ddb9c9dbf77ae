"""Small files from the outside: certificates, keys, tokens. Bounded, never waited for, refused in one line."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mesh.errors import UserError

# Of each file. A revocation list of 100,000 certificates has some 4 MB; nothing else comes near.
MAX_FILE_SIZE: Final = 16 << 20


def read_file(path: Path, *, if_missing: str, secret: bool = False, limit: int = MAX_FILE_SIZE) -> bytes:
    """Return the content of the regular file `path`, at most `limit` bytes; or raise UserError with one line.

    A `secret` may not be for everybody's use. `if_missing` says what to do where there is no such file.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:  # Path.open knows no opener
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UserError(f"{path} is no regular file; give an ordinary file")
            if secret and mode & stat.S_IRWXO:
                raise UserError(f"every user of this machine can use the secret in {path}; chmod 600 {path}")
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {if_missing}") from None
    except PermissionError:
        raise UserError(f"no permission to read {path}; it must be readable for the user of this process") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > limit:
        raise UserError(f"{path} has more than {_size(limit)}; is it the right file?")
    return content


def _open_at_once(path: str, flags: int) -> int:
    """A pipe in a file's place would make us wait for its writer, and all connections with us."""
    return os.open(path, flags | os.O_NONBLOCK)


def exists(path: Path) -> bool:
    """Whether there is something of that name; raise UserError where nobody lets us look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # it cannot be said that there is none
        raise UserError(f"cannot look for {path}: {error.strerror}") from None
    return True


Signature = tuple[tuple[int, int, int] | None, ...]


def signature_of(paths: Iterable[Path]) -> Signature:
    """What changes when one of the files does: time, size and inode; None for one that is not there now."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
