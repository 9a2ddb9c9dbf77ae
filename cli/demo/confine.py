"""Starts one program in its place: a pod's network, a user without rights, an end when its parent ends.

    python -m cli.demo.confine [--network /proc/PID/ns/net] [--user UID:GID | --account NAME] [--die-with PID]
                               -- COMMAND …

What `nsenter` and `setpriv` do, and one thing that neither does: a user without rights must be able to read the Python
installation and this project, which often lie below a home directory that is closed to others (/root). The program
gets a private view of the file system in which just those folders can be reached; nothing outside changes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pwd
import shutil
import signal
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000  # linux/sched.h
CLONE_NEWNET: Final = 0x40000000
MS_BIND: Final = 4096  # linux/mount.h
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
# A path to this project crosses a few closed folders at most; more rounds mean that opening one does not help.
MAX_ROUNDS: Final = 16

# What a program that only moves bytes needs of the rights of root: nothing.
DROP_EVERYTHING: Final = (
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--ambient-caps=-all",
)

libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace this process by the command. Returns only when that fails, with one line on stderr."""
    options = _parse(arguments)
    command: list[str] = options.command
    try:
        if options.network:
            _enter_network(options.network)
        if options.user:
            user, group = options.user.split(":")
            _reveal(needed_folders())
            command = [_setpriv(), "--reuid", user, "--regid", group, *DROP_EVERYTHING, *command]
        elif options.account:
            group = str(pwd.getpwnam(options.account).pw_gid)
            # setpriv changes the user, and the kernel forgets PDEATHSIG at that: it has to be set behind it.
            dying = ["--pdeathsig", "KILL"] if options.die_with else []
            setpriv = [_setpriv(), "--reuid", options.account, "--regid", group, "--init-groups", *dying]
            command = [*setpriv, *command]
        if options.die_with:
            _die_with(options.die_with)
        os.execvp(command[0], command)  # noqa: S606  # the point of this program; there is no shell in it
    except (OSError, KeyError) as error:
        print(f"could not start {options.command[0]}: {error}", file=sys.stderr)
    return 127  # what a shell returns for a command that it cannot start


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="confine")
    parser.add_argument("--network", type=Path)
    parser.add_argument("--user")
    parser.add_argument("--account")
    parser.add_argument("--die-with", type=int)
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


def _setpriv() -> str:
    path = shutil.which("setpriv")
    if path is None:
        raise FileNotFoundError("setpriv is missing; install util-linux")
    return path


def _enter_network(path: Path) -> None:
    with path.open("rb") as namespace:
        check(libc.setns(namespace.fileno(), CLONE_NEWNET), f"entering {path}")


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends; it may have ended before the kernel was told."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        raise ProcessLookupError("the demo has ended")


def needed_folders() -> list[Path]:
    """The folders that running this project's programs reads: interpreter, installed packages, the project."""
    names = [sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).parent), *sys.path]
    project = Path(__file__).resolve().parents[2]
    folders = {Path(name) for name in names if name} | {project}
    folders |= {folder.resolve() for folder in folders} | {Path(sys.executable).resolve().parent}
    return sorted(folder for folder in folders if folder.is_dir())


def first_closed(folder: Path) -> Path | None:
    """The outermost folder on the way to `folder`, itself included, that others may not pass; None if all may."""
    for step in (*reversed(folder.parents), folder):
        if not step.stat().st_mode & stat.S_IXOTH:
            return step
    return None


def _reveal(folders: Iterable[Path]) -> None:
    """Make `folders` reachable for everybody, in a mount namespace of this process alone."""
    wanted = list(folders)
    if not any(first_closed(folder) for folder in wanted):
        return
    check(libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    for _ in range(MAX_ROUNDS):
        closed = next((step for folder in wanted if (step := first_closed(folder))), None)
        if closed is None:
            return
        _reopen(closed, wanted)
    raise PermissionError(f"{closed} stays closed to others; chmod o+x it")


def _reopen(closed: Path, wanted: list[Path]) -> None:
    """Cover `closed` with an empty folder that holds, of what it held, only the ways to `wanted`."""
    if closed in wanted:
        names = {entry.name for entry in closed.iterdir()}
    else:
        names = {folder.relative_to(closed).parts[0] for folder in wanted if closed in folder.parents}
    # Held open before they are covered; /proc/self/fd still reaches them afterwards.
    held = {name: os.open(closed / name, os.O_PATH | os.O_CLOEXEC) for name in sorted(names)}
    _mount("tmpfs", str(closed), "tmpfs", 0, "mode=0755,size=1m")
    for name, descriptor in held.items():
        place = closed / name
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            place.mkdir()
        else:
            place.touch()
        _mount(f"/proc/self/fd/{descriptor}", str(place), "", MS_BIND | MS_REC)
        os.close(descriptor)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    check(result, f"mounting {target}")


def check(result: int, what: str) -> None:
    """Raise OSError where a call into the C library returned a failure."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
