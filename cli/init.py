"""`qbitel init`: apply, check or remove the interception rules of the network namespace that it runs in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from cli.arguments import Parser
from init import apply, config, foreign, goal, render, script, validate
from init.config import BackendChoice, InboundMode, InterceptionConfig, IPv6Mode
from init.rules import Family
from mesh import names
from mesh.errors import UserError

# What --check and --diff report by their exit code: grep's and diff's convention of 1 for "not so".
EXIT_DIFFERENT: Final = 1
EXIT_NOT_REDIRECTED: Final = 126  # what istio-iptables says, and what repair controllers look for

_DESCRIPTION: Final = """\
Send the traffic of this network namespace (a pod) through its sidecar. Applying twice changes nothing; rules
of others are never touched. Lists are comma-separated; ports and ids may be ranges (8000-8100); an exclusion
wins over an inclusion.
"""
_EXIT_CODES: Final = """\
exit codes: 0 done, or nothing differs; 1 --check or --diff found differences; 2 an error, with one line that says what
to do; 126 a connection that must be redirected was not
"""


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel init` with `arguments`; return its exit code. Raises UserError."""
    options = _parser().parse_args(arguments)
    _refuse_contradictions(options)
    wanted = _config(options)  # before anything is done: a value that cannot be read is a mistake in clean-up, too
    if options.cleanup:
        return _cleanup(options.reconcile)
    for line in config.without_effect(wanted):
        print(f"qbitel init: {line}", file=sys.stderr)
    if options.dry_run:
        return _dry_run(wanted, as_json=options.json)
    if options.script:
        print(script.render_script(wanted, reconcile=options.reconcile), end="")
        return 0
    if options.check:
        return _check(wanted)
    if options.diff:
        text = apply.diff(wanted)
        print(text, end="")
        return EXIT_DIFFERENT if text else 0
    if options.validate_only:
        return _validate(wanted, [plan.family for plan in goal.plans_for_dry_run(wanted)])
    return _apply(wanted, options)


def _refuse_contradictions(options: argparse.Namespace) -> None:
    if options.json and not options.dry_run:
        raise UserError("--json is a form of --dry-run; give both")
    changes = not (options.dry_run or options.check or options.diff or options.validate_only)
    if options.reconcile and not changes:
        raise UserError("--reconcile is about what is removed; --dry-run, --check, --diff and --validate-only do not")
    if options.validate and (not changes or options.cleanup or options.script):
        raise UserError("--validate follows applying; to prove rules that stand already, use --validate-only")


def _dry_run(wanted: InterceptionConfig, *, as_json: bool) -> int:
    text = render.dry_run_json if as_json else render.dry_run_text
    print(text(goal.plans_for_dry_run(wanted), wanted.inbound_mode is InboundMode.TPROXY), end="")
    return 0


def _apply(wanted: InterceptionConfig, options: argparse.Namespace) -> int:
    outcome = apply.apply(wanted, reconcile=options.reconcile)
    reached = outcome.goal
    if reached.notice:
        print(f"qbitel init: {reached.notice}", file=sys.stderr)
    held = [target.plan for target in reached.targets if target.plan.tables]
    families = " and ".join(plan.family.value for plan in held)
    kind = f", {reached.kind.value}" if reached.kind else ""
    done = "is in place" if outcome.changed else "was in place already; nothing changed"
    print(f"qbitel init: interception of {families} {done} ({sum(plan.rules for plan in held)} rules{kind})")
    return _validate(wanted, [plan.family for plan in held]) if options.validate else 0


def _validate(wanted: InterceptionConfig, families: Sequence[Family]) -> int:
    try:
        proof = validate.validate(wanted, families)
    except validate.NotRedirected as error:
        print(f"qbitel init: {error}", file=sys.stderr)
        return EXIT_NOT_REDIRECTED
    for line in proof.untried:
        print(f"qbitel init: not proved by a connection: {line}", file=sys.stderr)
    for probe in proof.arrived:
        print(f"qbitel init: a connection to {probe} arrived at port {probe.arrives}, as it must")
    return 0


def _check(wanted: InterceptionConfig) -> int:
    lines = apply.check(wanted)
    for line in lines:
        print(line)
    return EXIT_DIFFERENT if lines else 0


def _cleanup(reconcile: bool) -> int:
    outcome = apply.cleanup(reconcile=reconcile)
    whose = "qbitel and of other meshes" if reconcile else "qbitel"
    done = f"all rules of {whose} are removed" if outcome.changed else f"there was nothing of {whose} to remove"
    print(f"qbitel init: {done}")
    return 0


def _config(options: argparse.Namespace) -> InterceptionConfig:
    return InterceptionConfig(
        include_inbound_ports=config.parse_ports_or_all("--include-inbound-ports", options.include_inbound_ports),
        exclude_inbound_ports=config.parse_ports("--exclude-inbound-ports", options.exclude_inbound_ports),
        include_inbound_sources=config.parse_networks_or_all(
            "--include-inbound-sources", options.include_inbound_sources
        ),
        exclude_inbound_sources=config.parse_networks("--exclude-inbound-sources", options.exclude_inbound_sources),
        include_outbound_ports=config.parse_ports_or_all("--include-outbound-ports", options.include_outbound_ports),
        exclude_outbound_ports=config.parse_ports("--exclude-outbound-ports", options.exclude_outbound_ports),
        include_outbound_cidrs=config.parse_networks_or_all("--include-outbound-cidrs", options.include_outbound_cidrs),
        exclude_outbound_cidrs=config.parse_networks("--exclude-outbound-cidrs", options.exclude_outbound_cidrs),
        include_uids=config.parse_ids_or_all("--include-uids", options.include_uids),
        include_gids=config.parse_ids_or_all("--include-gids", options.include_gids),
        exclude_uids=config.parse_ids("--exclude-uids", options.exclude_uids),
        exclude_gids=config.parse_ids("--exclude-gids", options.exclude_gids),
        exclude_outbound_ports_for_uids=config.parse_ports_of_users(
            "--exclude-outbound-ports-for-uids", options.exclude_outbound_ports_for_uids
        ),
        include_interfaces=config.parse_interfaces_or_all("--include-interfaces", options.include_interfaces),
        exclude_interfaces=config.parse_interfaces("--exclude-interfaces", options.exclude_interfaces),
        proxy_uid=config.parse_id("--proxy-uid", options.proxy_uid),
        proxy_gid=config.parse_id("--proxy-gid", options.proxy_gid),
        outbound_port=config.parse_port("--outbound-port", options.outbound_port),
        inbound_port=config.parse_port("--inbound-port", options.inbound_port),
        inbound_mode=InboundMode(options.inbound_mode),
        dns_port=None if options.dns_port is None else config.parse_port("--dns-port", options.dns_port),
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
    action.add_argument(
        "--diff", action="store_true", help="change nothing; print what applying would change; exit 0 when nothing"
    )
    action.add_argument("--cleanup", action="store_true", help="remove everything of ours, whatever its options were")
    action.add_argument(
        "--script",
        action="store_true",
        help="print a POSIX shell script that applies this in an init container, which then needs no Python",
    )
    action.add_argument(
        "--validate-only",
        action="store_true",
        help="change nothing, need no root; prove by a connection that the rules work",
    )
    others = ", ".join(foreign.FOREIGN_MESHES.values())
    parser.add_argument("--json", action="store_true", help="with --dry-run: as one JSON document")
    parser.add_argument(
        "--reconcile",
        action="store_true",
        help=f"remove interception by {others} too; without it such a pod is refused",
    )
    parser.add_argument(
        "--validate", action="store_true", help="after applying, prove by a connection that the rules work"
    )

    inbound = parser.add_argument_group("what others dial in this pod")
    always = ", ".join(map(str, config.ALWAYS_EXCLUDED_INBOUND))
    inbound.add_argument("--include-inbound-ports", default="*", metavar="PORTS", help="captured; * is all (default)")
    inbound.add_argument(
        "--exclude-inbound-ports",
        default="",
        metavar="PORTS",
        help=f"not captured, besides {always}, which never are",
    )
    inbound.add_argument(
        "--include-inbound-sources", default="*", metavar="CIDRS", help="captured from these; * is all (default)"
    )
    inbound.add_argument("--exclude-inbound-sources", default="", metavar="CIDRS", help="not captured from these")
    inbound.add_argument(
        "--inbound-mode",
        choices=[mode.value for mode in InboundMode],
        default=InboundMode.REDIRECT.value,
        help="tproxy keeps the client's address; the sidecar then needs NET_RAW or NET_ADMIN",
    )

    outbound = parser.add_argument_group("what this pod dials")
    outbound.add_argument(
        "--include-outbound-ports",
        default="",
        metavar="PORTS",
        help="captured to any address, besides the CIDRs: alone with --include-outbound-cidrs ''",
    )
    outbound.add_argument("--exclude-outbound-ports", default="", metavar="PORTS", help="not captured to any address")
    outbound.add_argument("--include-outbound-cidrs", default="*", metavar="CIDRS", help="captured; * is all (default)")
    outbound.add_argument("--exclude-outbound-cidrs", default="", metavar="CIDRS", help="not captured")
    outbound.add_argument(
        "--include-uids", default="*", metavar="UIDS", help="captured from these users; * is all (default)"
    )
    outbound.add_argument("--exclude-uids", default="", metavar="UIDS", help="not captured from these users")
    outbound.add_argument(
        "--include-gids", default="*", metavar="GIDS", help="captured from these groups, or included users"
    )
    outbound.add_argument("--exclude-gids", default="", metavar="GIDS", help="not captured from these groups")
    outbound.add_argument(
        "--exclude-outbound-ports-for-uids",
        default="",
        metavar="UIDS:PORTS;…",
        help="ports not captured from some users: 1000:25,465-587;2000-2010:9092",
    )
    outbound.add_argument(
        "--dns-port",
        metavar="PORT",
        help=f"send questions to name servers (53, udp and tcp) to this port, such as {names.DNS_PORT}",
    )

    both = parser.add_argument_group("both directions")
    both.add_argument(
        "--include-interfaces", default="*", metavar="NAMES", help="captured on these; * is all (default)"
    )
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
