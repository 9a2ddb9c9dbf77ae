"""`qbitel certmgr serve`: the mesh's certificate authority as a service."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from certmgr import server
from certmgr.audit import file_journal
from certmgr.folder_store import FolderStore
from certmgr.parts import Parts
from certmgr.server import Listening
from certmgr.storage import shown
from cli.arguments import Address, Parser, address
from cli.proxy import DEFAULT_PROFILE, add_log_level, endpoint, set_up_logging
from mesh import names
from mesh.errors import UserError
from proxy import config, sockets
from proxy.credentials import utc_now

# Requests take milliseconds; what is slower than this at the end has a client that does not read.
_DRAIN_SECONDS = 10.0
# What a supervisor waits at the very most.
_MOST_SECONDS = 3600.0
_AUDIT_FILE = "audit.log"
# In a folder there is one; a second one beside it is a mistake that costs nothing, since every change is conditional.
_REPLICA = "folder"


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    options = _parser().parse_args(arguments)
    set_up_logging(options.log_level)
    return asyncio.run(_serve(options))


def _parser() -> Parser:
    parser = Parser(prog="qbitel certmgr", description="The certificate authority of the mesh, as a service.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help="issue and renew certificates over HTTPS",
        description="Issue and renew certificates over HTTPS with the mesh's own TLS, in the foreground. Who asks "
        "proves who it is by a certificate that is still valid or by a one-time token of `qbitel ca token`. SIGTERM "
        "finishes what is under way and ends it; a second one ends it at once.",
    )
    serve.add_argument("folder", type=Path, metavar="DIR", help="the authority's folder, of `qbitel ca init`")
    serve.add_argument(
        "--listen", metavar="ADDR", type=address, help=f"where the API is served ({names.AUTHORITY_PORT}, everywhere)"
    )
    serve.add_argument(
        "--profile",
        metavar="P[,P…]",
        action="append",
        default=[],
        help=f"what may be negotiated; several in order of preference, with commas or repeated ({DEFAULT_PROFILE})",
    )
    serve.add_argument("--metrics", metavar="ADDR", type=address, help=f"GET /metrics ({names.METRICS_PORT})")
    serve.add_argument(
        "--health", metavar="ADDR", type=address, help=f"GET /healthz/ready and /healthz/live ({names.HEALTH_PORT})"
    )
    serve.add_argument(
        "--audit",
        metavar="FILE",
        type=Path,
        help=f"the audit log, only ever appended to (DIR/{_AUDIT_FILE})",
    )
    serve.add_argument(
        "--drain-seconds",
        metavar="S",
        type=_seconds,
        default=_DRAIN_SECONDS,
        help="how long SIGTERM waits for requests to end (%(default)g)",
    )
    add_log_level(serve)
    return parser


async def _serve(options: argparse.Namespace) -> int:
    profiles = config.profiles_named(options.profile or [DEFAULT_PROFILE])
    parts = _folder_parts(options)
    with contextlib.closing(_listening(options)) as listening:
        return await server.run(parts, listening, profiles=profiles, drain_seconds=options.drain_seconds, now=utc_now)


def _folder_parts(options: argparse.Namespace) -> Parts:
    folder: Path = options.folder
    # The journal makes its file; a folder that was mistyped must not come into being by that.
    if not folder.is_dir():
        raise UserError(f"{shown(folder)} is no folder; make an authority with `qbitel ca init`")
    return Parts(
        store=FolderStore(folder), journal=file_journal(options.audit or folder / _AUDIT_FILE), replica=_REPLICA
    )


def _listening(options: argparse.Namespace) -> Listening:
    """Bind every port, or raise UserError and leave nothing bound."""
    ipv6 = sockets.ipv6_available()
    with contextlib.ExitStack() as undo:

        def bind(given: Address | None, port: int) -> list[socket.socket]:
            where = config.everywhere(port, ipv6) if given is None else (endpoint(given),)
            return [undo.enter_context(contextlib.closing(sockets.listen(one))) for one in where]

        listening = Listening(
            bind(options.listen, names.AUTHORITY_PORT),
            bind(options.metrics, names.METRICS_PORT),
            bind(options.health, names.HEALTH_PORT),
        )
        undo.pop_all()
    return listening


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {_MOST_SECONDS:g}")
    return seconds
