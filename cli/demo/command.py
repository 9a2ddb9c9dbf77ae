"""`qbitel demo`: the flags, and what is wrong with them."""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cli.arguments import Parser, positive_int
from cli.demo import guard
from cli.demo.content import MAX_FILE_SIZE
from cli.demo.options import Options
from mesh.errors import UserError

SAMPLE_PORT: Final = 8080
FILE_MIB: Final = 256
MAX_FILE_MIB: Final = MAX_FILE_SIZE >> 20
MAX_PORT: Final = 65535

DESCRIPTION: Final = """\
Two pods, a sidecar in each, an unmodified client and server, and a tap on the wire between them: without
sidecars the tap reads everything, with them nothing. As root on Linux the pods are network namespaces with
real interception rules; otherwise the sidecars stand on loopback. Nothing is left behind, however it ends."""
EPILOG: Final = """\
examples:
  qbitel demo                                     until Ctrl-C
  qbitel demo --once                              exit code 0 only if every claim was seen
  qbitel demo --app 'redis-server --protected-mode no' --port 6379
                                                  your own server in pod-b; it must listen on all addresses"""


def main(arguments: Sequence[str]) -> int:
    """Run the demo and return its exit code: 0 when every claim was seen, 1 when not; UserError for wrong flags."""
    return guard.run(parse(arguments))


def parse(arguments: Sequence[str]) -> Options:
    """Read the flags; UserError where they cannot work together or on this machine."""
    given = _parser().parse_args(arguments)
    words = _words(given.app) if given.app is not None else ()
    if words and given.port is None:
        raise UserError("--app needs --port, the TCP port that your server listens on")
    if given.port is not None and not words:
        raise UserError("--port belongs to --app; the sample server needs none")
    if given.port is not None and given.port > MAX_PORT:
        raise UserError(f"--port {given.port} is no TCP port; give one from 1 to {MAX_PORT}")
    if given.file_mib > MAX_FILE_MIB:
        raise UserError(f"--file-mib {given.file_mib} is too large; give at most {MAX_FILE_MIB}")
    if given.app_user is not None:
        _check_account(given.app_user, has_app=bool(words))
    return Options(
        once=given.once or given.json,
        json=given.json,
        loopback=given.loopback,
        app=words,
        app_user=given.app_user,
        port=given.port or SAMPLE_PORT,
        file_mib=given.file_mib,
        keep_capture=_capture_path(given.keep_capture) if given.keep_capture is not None else None,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel demo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--once", action="store_true", help="end after the numbers; exit code 1 if a claim was not seen"
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON document, and end")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, even as root")
    parser.add_argument(
        "--app", metavar="COMMAND", help="your own server instead of the sample; no shell: write sh -c '…' for one"
    )
    parser.add_argument("--port", type=positive_int, help="the TCP port that --app listens on")
    parser.add_argument("--app-user", metavar="NAME", help="run --app as this user (needs root)")
    parser.add_argument(
        "--file-mib", type=positive_int, default=FILE_MIB, help=f"size of the large file (default {FILE_MIB})"
    )
    parser.add_argument("--keep-capture", metavar="FILE", help="keep what passed on the wire with sidecars, as pcap")
    return parser


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UserError(f"--app {command!r} cannot be read as a command: {error}") from None
    if not words:
        raise UserError("--app is empty; give a command, for example --app 'redis-server' --port 6379")
    return words


def _check_account(name: str, *, has_app: bool) -> None:
    if not has_app:
        raise UserError("--app-user belongs to --app")
    if os.geteuid() != 0:
        raise UserError("--app-user needs root; run the demo as that user instead")
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise UserError(f"--app-user {name}: there is no such user on this machine") from None


def _capture_path(text: str) -> str:
    path = Path(text).absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--keep-capture {text}: give a file name in a folder that exists")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--keep-capture {text}: no permission to write there")
    return str(path)
