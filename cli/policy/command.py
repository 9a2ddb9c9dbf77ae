"""`qbitel policy`: a mesh governed by files. Write policies, check them, ask them, compare them.

One file per command beside this one: each brings its part of the command line and what it does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cli.arguments import Parser
from cli.policy import build, check, diff, explain

_COMMANDS = (build, check, explain, diff)


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel policy` with `arguments` and return its exit code. UserError for what the user can mend."""
    options = _parser().parse_args(arguments)
    code: int = options.run(options)
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel policy",
        description="Govern a mesh by files: Istio's resources, which Istio and this mesh's sidecars both follow.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON object for programs")
    for command in _COMMANDS:
        command.add_parser(commands, common)
    return parser
