"""`qbitel policy diff`: what changes from one set of policies to another, and for whom."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from cli.ca.answers import EXIT_NO, Answer
from cli.policy.places import Policies, add_reading, applied, at, cluster, policies
from mesh.differences import MOST_QUESTIONS, DecisionChange, DecisionChanges, decision_changes
from mesh.documents import Document
from mesh.errors import UserError
from mesh.resource_changes import ResourceChange, resource_changes
from mesh.selectors import Workload

_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}
# A person reads no more; --json has all of them.
_MOST_LINES: Final = 200


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`diff BEFORE AFTER`."""
    parser = commands.add_parser(
        "diff",
        parents=[common],
        help="say what changes from one set of policies to another, and for whom",
        description="Compares two sets of policies, or with --cluster what is in force with what would be if the "
        "files were applied: which resources change, and which answers, for each caller, workload and port that one "
        "of the sets tells apart. Exit code 0: nothing changes; 1: something does.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="BEFORE and AFTER; with --cluster AFTER alone")
    add_reading(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    before, after = (one.complete() for one in _both(options))
    resources = resource_changes(before.documents, after.documents)
    decisions = decision_changes(before.resources, after.resources, trust_domain=options.trust_domain)
    lines = list(_lines(resources, decisions))
    changes = bool(resources or decisions.changes)
    return Answer(lines, _as_dict(resources, decisions), EXIT_NO if changes else 0).tell(options)


def _both(options: argparse.Namespace) -> tuple[Policies, Policies]:
    if options.cluster:
        if len(options.paths) != 1:
            raise UserError("with --cluster give one path: what would be applied")
        there, mine = cluster(options), at(options.paths[0], options)
        return policies(there, options), policies(applied(there, mine), options)
    if len(options.paths) != 2:
        raise UserError("give two paths, BEFORE and AFTER, or --cluster and one")
    before, after = (policies(at(path, options), options) for path in options.paths)
    return before, after


# Words


def _lines(resources: Sequence[ResourceChange], decisions: DecisionChanges) -> Iterator[str]:
    changes = decisions.changes
    if not resources and not changes:
        yield "nothing changes"
        return
    yield _title(len(resources), "resource changes", "resources change")
    yield from (f"  {line}" for change in resources for line in _resource_lines(change))
    yield ""
    yield _title(len(changes), "answer changes", "answers change")
    for workload, of_workload in groupby(changes[:_MOST_LINES], key=lambda one: str(one.workload)):
        yield f"  {workload}"
        yield from (f"    {line}" for change in of_workload for line in _decision_lines(change))
    if len(changes) > _MOST_LINES:
        yield f"  … and {len(changes) - _MOST_LINES} more; --json has all of them"
    if not decisions.complete:
        yield f"not everything was asked: the sets make more than {MOST_QUESTIONS} questions"


def _title(number: int, one: str, several: str) -> str:
    return f"{number or 'no'} {one if number == 1 else several}"


def _resource_lines(change: ResourceChange) -> Iterator[str]:
    document = change.after or change.before
    place = f" ({document.source}:{document.line()})" if document is not None and document.line() else ""
    yield f"{_SIGNS[change.what]} {change.resource}{place}"
    yield from (f"    {field}" for field in change.fields)


def _decision_lines(change: DecisionChange) -> Iterator[str]:
    yield f"{change.caller.words}{_port(change)}: {change.before} → {change.after}"
    yield f"  {change.after.reason}"


def _port(change: DecisionChange) -> str:
    if change.port is not None:
        return f", port {change.port}"
    return f", every port but {', '.join(map(str, change.named))}" if change.named else ""


def _as_dict(resources: Sequence[ResourceChange], decisions: DecisionChanges) -> dict[str, Any]:
    return {
        "changes": bool(resources or decisions.changes),
        "complete": decisions.complete,
        "resources": [
            {
                "what": one.what,
                "resource": one.resource,
                "fields": list(one.fields),
                "before": _place(one.before),
                "after": _place(one.after),
            }
            for one in resources
        ],
        "decisions": [_decision(one) for one in decisions.changes],
    }


def _place(document: Document | None) -> dict[str, Any] | None:
    return {"source": document.source, "line": document.line() or None} if document is not None else None


def _decision(change: DecisionChange) -> dict[str, Any]:
    return {
        "workload": _workload(change.workload),
        "caller": change.caller.words,
        "principal": change.caller.principal,
        "port": change.port,
        "other_ports_than": list(change.named) if change.port is None else [],
        "opens": change.opens,
        **{
            name: {
                "allowed": outcome.transport != "refused" and outcome.allowed,
                "transport": outcome.transport,
                "requests": outcome.requests,
                "reason": outcome.reason,
            }
            for name, outcome in (("before", change.before), ("after", change.after))
        },
    }


def _workload(workload: Workload) -> dict[str, Any]:
    return {"namespace": workload.namespace, "name": workload.name, "labels": dict(workload.labels)}
