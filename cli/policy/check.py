"""`qbitel policy check`: what is wrong with policies, at which line of which file, before anybody applies them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cli.ca.answers import EXIT_NO, Answer
from cli.policy.places import Policies, add_places, found
from control.folder import CLUSTER
from mesh.conflicts import of_set
from mesh.documents import Document, Problem
from mesh.errors import UserError
from mesh.resource_changes import governs
from mesh.verification import problem_as_dict

_ORDER: Final = {"error": 0, "warning": 1, "note": 2}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`check PATH…`."""
    parser = commands.add_parser(
        "check",
        parents=[common],
        help="say what is wrong with policies: file, line and field",
        description="Reads policies as a sidecar does, and says what is wrong with each and what contradicts what. "
        "Exit code 0: nothing is wrong; 1: something is; 2: the command line is.",
    )
    add_places(parser)
    parser.add_argument("--strict", action="store_true", help="warnings are wrong, too")
    parser.add_argument("-q", "--quiet", action="store_true", help="leave out notes")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    policies = found(options)
    if not policies.sources:
        raise UserError(
            f"there is no .yaml, .yml or .json file in {', '.join(options.paths)}; -r looks into folders within it"
        )
    # What a resource says by itself comes first, then what it says together with others.
    problems = list(dict.fromkeys((*policies.problems, *of_set(policies.resources))))
    told = [one for one in problems if not (options.quiet and one.severity == "note")]
    told.sort(key=lambda one: (_ORDER[one.severity], one.source, one.line))
    count: Counter[str] = Counter(one.severity for one in problems)
    is_bad = bool(count["error"] or (options.strict and count["warning"]))
    read = _count(one for one in policies.documents if governs(one))
    others = _count(one for one in policies.documents if not governs(one))
    data = {
        "ok": not is_bad,
        "files": len(policies.sources),
        "resources": read,
        "others": others,
        "errors": count["error"],
        "warnings": count["warning"],
        "problems": [problem_as_dict(one) for one in told],
    }
    lines = [*map(line_of, told), _summary(policies, read, others, count)]
    return Answer(lines, data, EXIT_NO if is_bad else 0).tell(options)


def line_of(problem: Problem) -> str:
    """A problem as compilers tell theirs: place, severity, and what it is."""
    place = f"{problem.source}:{problem.line}" if problem.line else problem.source
    rest = ": ".join(part for part in (problem.resource, problem.field, problem.message) if part)
    return f"{place}: {problem.severity}: {rest}" if place else f"{problem.severity}: {rest}"


def _count(documents: Iterable[Document]) -> dict[str, int]:
    return dict(sorted(Counter(str(one.value.get("kind")) for one in documents).items()))


def _summary(policies: Policies, read: Mapping[str, int], others: Mapping[str, int], count: Counter[str]) -> str:
    wrong = [_several(count[severity], severity) for severity in ("error", "warning") if count[severity]]
    files = [one for one in policies.sources if one != CLUSTER]
    places = [] if len(files) == len(policies.sources) else ["the cluster"]
    if files or not places:
        places.append(_several(len(files), "file"))
    where = f"{' and '.join(places)}, {_several(sum(read.values()), 'resource')}"
    beside = f" (and {sum(others.values())} that govern nothing)" if others else ""
    return f"{where}{beside}: {' and '.join(wrong) or 'nothing is wrong'}"


def _several(number: int, word: str) -> str:
    return f"{number} {word if number == 1 else word + 's'}"
