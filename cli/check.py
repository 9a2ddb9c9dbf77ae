"""`qbitel check`: whether a machine, a cluster, the mesh in it or manifests are as they ought to be, and what to do.

What is looked at is in cli/checks/: facts are gathered, and judged by pure functions, a row of a table for each.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.arguments import Parser, positive_int
from cli.checks import manifests, report, table
from cli.checks.facts import ClusterFacts
from cli.checks.findings import Check, Finding, Group, Status, skipped
from cli.checks.machine import Subject
from mesh import names
from mesh.errors import UserError

EXIT_FAILURE: Final = 1
# Certificates are renewed in rounds: fifty sidecars, evenly chosen, show what is wrong with more than a few.
_SAMPLE: Final = 50
_MOST_SAMPLED: Final = 5000
_MOST_WAIT: Final = 3600.0
# Between two looks of --wait: a pod takes seconds to start.
_PAUSE_SECONDS: Final = 2.0
# Where Kubernetes mounts a pod's own token.
_POD_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time as the command sees it."""

    now: Callable[[], datetime.datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


REAL: Final = Clocks(lambda: datetime.datetime.now(datetime.UTC), time.monotonic, time.sleep)


def main(arguments: Sequence[str]) -> int:
    """Run the checks that are asked for and print what they find; 0 where none is a failure. Raises UserError."""
    return run(arguments, os.environ, REAL)


def run(arguments: Sequence[str], environment: Mapping[str, str], clocks: Clocks) -> int:
    """As `main`, in this environment and time."""
    options = _parser().parse_args(arguments)
    if options.list:
        print(listing())
        return 0
    command = _Command(options, environment, clocks)
    deadline = clocks.monotonic() + options.wait
    found = command.look()
    while _has_failed(found) and clocks.monotonic() < deadline:
        clocks.sleep(min(_PAUSE_SECONDS, max(deadline - clocks.monotonic(), 0.0)))
        found = command.look()
    print(report.as_json(found) if options.json or options.output == "json" else report.as_lines(found))
    return EXIT_FAILURE if _has_failed(found) else 0


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel check",
        description="Say what of this machine, of a cluster and of the mesh in it is as it ought to be: a line for "
        "each check, and what to do where it is not. Without an option: this machine and, where a kubeconfig is at "
        "hand, the mesh in that cluster. Nothing is changed: pods are made for trial only (dry run).",
        epilog="exit codes: 0 no check fails (warnings and skipped ones are no failure); 1 one fails; 2 an error",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--local", action="store_true", help="this machine alone")
    mode.add_argument("--pre", action="store_true", help="before an installation: can this cluster have the mesh")
    mode.add_argument("--proxy", action="store_true", help="the pods of the mesh alone (the data plane)")
    mode.add_argument(
        "-f",
        "--file",
        metavar="FILE|DIR",
        action="append",
        help="manifests and policies instead of a cluster; - for standard input; repeatable",
    )
    parser.add_argument(
        "--namespace",
        "-n",
        metavar="NS",
        action="append",
        default=[],
        help="the pods of this namespace alone; repeatable. With -f: of what names none (default)",
    )
    parser.add_argument("--control-namespace", metavar="NS", default=names.CONTROL_NAMESPACE, help="(%(default)s)")
    parser.add_argument(
        "--kubeconfig", metavar="FILE", help="the cluster ($KUBECONFIG, ~/.kube/config, the one that this pod is in)"
    )
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig (its current one)")
    parser.add_argument(
        "--certs", metavar="DIR", type=Path, help=f"these certificates too, as {names.CERTIFICATE_FOLDER}"
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="the same as -o json")
    parser.add_argument(
        "--wait", metavar="SECONDS", type=_seconds, default=0.0, help="until no check fails, so long at most"
    )
    for flag, text in (("--only", "these checks or groups alone"), ("--skip", "not these checks or groups")):
        parser.add_argument(
            flag, metavar="NAME[,NAME…]", type=_words, action="extend", default=[], help=f"{text}; repeatable"
        )
    parser.add_argument(
        "--sample",
        metavar="N",
        type=_sample,
        default=_SAMPLE,
        help=f"ask so many sidecars for their metrics (%(default)s; up to {_MOST_SAMPLED})",
    )
    parser.add_argument("--list", action="store_true", help="all checks, a line each, and end")
    return parser


def listing() -> str:
    """Every check: its name, its group, what it is about."""
    width = max(len(check.name) for check in table.EVERY)
    groups = max(len(group.value) for group in Group)
    return "\n".join(f"{one.name:<{width}}  {one.group.value:<{groups}}  {one.about}" for one in table.EVERY)


class _Command:
    """What was asked for, checked; `look` does it, and may be called again."""

    def __init__(self, options: argparse.Namespace, environment: Mapping[str, str], clocks: Clocks) -> None:
        self._options = options
        self._environment = environment
        self._clocks = clocks
        self._wanted = table.selected(_groups(options), options.only, options.skip)
        self._reads_cluster = any(check.name in self._wanted for check in table.CLUSTER)
        self._kubeconfig, self._has_cluster = self._cluster() if self._reads_cluster else (None, False)

    def look(self) -> dict[Check[Any], Finding]:
        """Run every check that is wanted."""
        if self._options.file:
            facts = manifests.read(
                self._options.file, self._options.namespace, control_namespace=self._options.control_namespace
            )
            return self._judged(table.FILES, facts)
        subject = Subject(self._options.certs, self._environment, self._clocks.now())
        return self._judged(table.MACHINE, subject) | self._of_cluster()

    def _of_cluster(self) -> dict[Check[Any], Finding]:
        if not self._reads_cluster:
            return {}
        reachable, *others = [check for check in table.CLUSTER if check.name in table.REQUIRED]
        if not self._has_cluster:
            return {reachable: skipped("no cluster is at hand: --kubeconfig FILE names one (--local: do without)")}
        facts = self._facts()
        # Without them everything else is skipped, which is no failure: nobody shall take that for a good mesh.
        required = {check: check.run(facts) for check in (reachable, *([] if self._options.pre else others))}
        return {check: one for check, one in required.items() if one.status is Status.FAILURE} | self._judged(
            table.CLUSTER, facts
        )

    def _judged(self, checks: Sequence[Check[Any]], facts: object) -> dict[Check[Any], Finding]:
        return {check: check.run(facts) for check in checks if check.name in self._wanted}

    def _cluster(self) -> tuple[str | None, bool]:
        """The kubeconfig (None: that of this pod), and whether there is a cluster at all. Raises UserError."""
        options = self._options
        try:
            from control.cluster import usual_kubeconfig  # noqa: PLC0415  # an extra brings what it needs
        except ImportError as error:
            if options.kubeconfig or options.context or options.pre or options.proxy:
                raise UserError(
                    f"a cluster needs the Python package {error.name}: pip install 'qbitel-mesh[kubernetes]'"
                ) from None
            return None, False
        kubeconfig = usual_kubeconfig(options.kubeconfig, self._environment)
        if kubeconfig is None and options.context:
            raise UserError("--context is of a kubeconfig, and there is none; give --kubeconfig FILE")
        found = kubeconfig is not None or _POD_TOKEN.exists()
        if not found and (options.pre or options.proxy):
            raise UserError("no cluster is at hand; give --kubeconfig FILE")
        return kubeconfig, found

    def _facts(self) -> ClusterFacts:
        from cli.checks import gathering  # noqa: PLC0415  # an extra brings what it needs

        options = self._options
        groups = {check.group for check in table.CLUSTER if check.name in self._wanted}
        wanted = gathering.Wanted(groups, options.control_namespace, frozenset(options.namespace), options.sample)
        return asyncio.run(gathering.gather(self._kubeconfig, options.context, wanted, self._clocks.now))


def _groups(options: argparse.Namespace) -> frozenset[Group]:
    if options.file:
        return table.OF_FILES
    if options.local:
        return table.LOCAL
    if options.pre:
        return table.PRE
    return table.PROXY if options.proxy else table.INSTALLED


def _has_failed(found: Mapping[Check[Any], Finding]) -> bool:
    return any(one.status is Status.FAILURE for one in found.values())


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MOST_WAIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {_MOST_WAIT:g}")
    return seconds


def _sample(text: str) -> int:
    number = positive_int(text)
    if number > _MOST_SAMPLED:
        raise argparse.ArgumentTypeError(f"{text} sidecars are too many; at most {_MOST_SAMPLED}")
    return number
