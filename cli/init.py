"""`qbitel init`: apply, check or remove the interception rules of the network namespace that it runs in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from cli.arguments import Parser
from init import apply, config, render
from init.config import BackendChoice, InterceptionConfig, IPv6Mode
from mesh import names

# What --check reports by its exit code: grep's and diff's convention of 1 for "not so".
EXIT_DIFFERENT: Final = 1

_DESCRIPTION: Final = """\
Send the traffic of this network namespace (a pod) through its sidecar. Applying twice changes nothing; rules
of others are never touched. Lists are comma-separated; ports may be ranges (8000-8100); an exclusion wins
over an inclusion.
"""
_EXIT_CODES: Final = """\
exit codes: 0 done, or --check found no difference; 1 --check found differences (one a line); 2 an error, with
one line that says what to do
"""


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel init` with `arguments`; return its exit code. Raises UserError."""
    options = _parser().parse_args(arguments)
    if options.cleanup:
        return _cleanup()
    wanted = _config(options)
    if options.dry_run:
        print(render.dry_run_text(apply.plans_for_dry_run(wanted)), end="")
        return 0
    if options.check:
        return _check(wanted)
    return _apply(wanted)


def _apply(wanted: InterceptionConfig) -> int:
    outcome = apply.apply(wanted)
    goal = outcome.goal
    if goal.notice:
        print(f"qbitel init: {goal.notice}", file=sys.stderr)
    held = [target.plan for target in goal.targets if target.plan.tables]
    families = " and ".join(plan.family.value for plan in held)
    kind = f", {goal.kind.value}" if goal.kind else ""
    done = "is in place" if outcome.changed else "was in place already; nothing changed"
    print(f"qbitel init: interception of {families} {done} ({sum(plan.rules for plan in held)} rules{kind})")
    return 0


def _check(wanted: InterceptionConfig) -> int:
    lines = apply.check(wanted)
    for line in lines:
        print(line)
    return EXIT_DIFFERENT if lines else 0


def _cleanup() -> int:
    outcome = apply.cleanup()
    done = "all rules of qbitel are removed" if outcome.changed else "there was nothing of qbitel to remove"
    print(f"qbitel init: {done}")
    return 0


def _config(options: argparse.Namespace) -> InterceptionConfig:
    return InterceptionConfig(
        include_inbound_ports=config.parse_ports_or_all("--include-inbound-ports", options.include_inbound_ports),
        exclude_inbound_ports=config.parse_ports("--exclude-inbound-ports", options.exclude_inbound_ports),
        include_outbound_ports=config.parse_ports_or_all("--include-outbound-ports", options.include_outbound_ports),
        exclude_outbound_ports=config.parse_ports("--exclude-outbound-ports", options.exclude_outbound_ports),
        include_outbound_cidrs=config.parse_networks_or_all("--include-outbound-cidrs", options.include_outbound_cidrs),
        exclude_outbound_cidrs=config.parse_networks("--exclude-outbound-cidrs", options.exclude_outbound_cidrs),
        exclude_interfaces=config.parse_interfaces("--exclude-interfaces", options.exclude_interfaces),
        proxy_uid=config.parse_id("--proxy-uid", options.proxy_uid),
        proxy_gid=config.parse_id("--proxy-gid", options.proxy_gid),
        outbound_port=config.parse_port("--outbound-port", options.outbound_port),
        inbound_port=config.parse_port("--inbound-port", options.inbound_port),
        drop_invalid=options.drop_invalid,
        ipv6=IPv6Mode(options.ipv6),
        backend=BackendChoice(options.backend),
    )


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel init",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be applied to a fresh pod; touch nothing, need no root",
    )
    action.add_argument("--check", action="store_true", help="change nothing; exit 0 when the rules are exactly these")
    action.add_argument("--cleanup", action="store_true", help="remove everything of ours, whatever its options were")

    inbound = parser.add_argument_group("what others dial in this pod")
    always = ", ".join(map(str, config.ALWAYS_EXCLUDED_INBOUND))
    inbound.add_argument("--include-inbound-ports", default="*", metavar="PORTS", help="captured; * is all (default)")
    inbound.add_argument(
        "--exclude-inbound-ports",
        default="",
        metavar="PORTS",
        help=f"not captured, besides {always}, which never are",
    )

    outbound = parser.add_argument_group("what this pod dials")
    outbound.add_argument(
        "--include-outbound-ports",
        default="",
        metavar="PORTS",
        help="captured to any address, besides the CIDRs",
    )
    outbound.add_argument("--exclude-outbound-ports", default="", metavar="PORTS", help="not captured to any address")
    outbound.add_argument("--include-outbound-cidrs", default="*", metavar="CIDRS", help="captured; * is all (default)")
    outbound.add_argument("--exclude-outbound-cidrs", default="", metavar="CIDRS", help="not captured")

    both = parser.add_argument_group("both directions")
    both.add_argument(
        "--exclude-interfaces",
        default="",
        metavar="NAMES",
        help="not captured on these; veth+ is all that start so",
    )
    both.add_argument(
        "--drop-invalid", action="store_true", help="drop packets that fit no connection (ctstate INVALID)"
    )
    both.add_argument(
        "--ipv6",
        choices=[mode.value for mode in IPv6Mode],
        default="auto",
        help="auto: when there is an IPv6 address",
    )
    both.add_argument(
        "--backend",
        choices=[choice.value for choice in BackendChoice],
        default="auto",
        help="auto: the one that holds rules already, else the one that the kernel supports",
    )

    sidecar = parser.add_argument_group("the sidecar")
    sidecar.add_argument("--proxy-uid", default=str(names.SIDECAR_UID), metavar="UID", help="default %(default)s")
    sidecar.add_argument("--proxy-gid", default=str(names.SIDECAR_GID), metavar="GID", help="default %(default)s")
    sidecar.add_argument(
        "--outbound-port", default=str(names.OUTBOUND_PORT), metavar="PORT", help="default %(default)s"
    )
    sidecar.add_argument("--inbound-port", default=str(names.INBOUND_PORT), metavar="PORT", help="default %(default)s")
    return parser
