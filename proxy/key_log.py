"""The key log: the secrets of every connection in a file of NSS's format, so that a packet analyser can read a capture.

It lays everything open that TLS protects. So it wants two switches, of which one is in the environment, where nobody
puts it by copying a command line; and each start says so in the log.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mesh.errors import UserError

SWITCH: Final = "QBITEL_DEVELOPMENT"
_MODE: Final = 0o600

_log = logging.getLogger("qbitel.proxy")


def open_key_log(path: Path, environment: Mapping[str, str]) -> Callable[[str], None]:
    """Open `path` to append to, made with mode 0600, and return what writes one line to it; or raise UserError.

    The file stays open as long as the process lives. Lines of several workers do not mix: each is one write at the end.
    """
    if environment.get(SWITCH) != "1":
        raise UserError(
            f"--key-log lets whoever reads {path} decrypt all traffic; it works only with {SWITCH}=1 in the environment"
        )
    try:
        # O_NOFOLLOW: in a folder that others can write to, a symbolic link would choose the file. O_NONBLOCK: a pipe in
        # its place would make us wait for a reader.
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, _MODE)
    except OSError as error:
        raise UserError(f"cannot write the key log {path}: {error.strerror}") from None
    if fault := _fault(os.fstat(fd)):
        os.close(fd)
        raise UserError(f"the key log {path} {fault}; chmod 600 {path} or remove it")
    _log.warning("the secrets of every connection go to %s: whoever reads that file can decrypt all traffic", path)

    def write(line: str) -> None:
        os.write(fd, f"{line}\n".encode("ascii"))

    return write


def _fault(status: os.stat_result) -> str:
    """What makes the file one that somebody else chose or can use; or ""."""
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    if status.st_uid != os.geteuid():
        return "belongs to somebody else"
    if status.st_nlink != 1:
        return "has another name, too (a hard link)"
    if stat.S_IMODE(status.st_mode) & ~_MODE:
        return "can be used by others than its owner"
    return ""
