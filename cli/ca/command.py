"""`qbitel ca`: authorities and certificates, in folders or in a cluster.

One file per command beside this one: each brings its part of the command line and what it does.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence

from cli.arguments import Parser
from cli.ca import bundle, init, issue, offline, revoke, rotate, show, token, verify
from cli.ca.places import Clock

_COMMANDS = (init, issue, token, show, verify, revoke, rotate, bundle, offline)


def utc_now() -> datetime.datetime:
    """The present, aware."""
    return datetime.datetime.now(datetime.UTC)


def main(arguments: Sequence[str], *, clock: Clock = utc_now) -> int:
    """Run `qbitel ca` with `arguments` and return its exit code. UserError for what the user can mend."""
    options = _parser().parse_args(arguments)
    code: int = options.run(options, clock)
    return code


def _parser() -> Parser:
    parser = Parser(prog="qbitel ca", description="Make and run certificate authorities, in folders or in a cluster.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON object for programs")
    for command in _COMMANDS:
        command.add_parser(commands, common)
    return parser
