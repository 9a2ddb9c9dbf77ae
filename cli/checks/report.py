"""What was found, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cli.checks.findings import Check, Finding, Status, several

# Whoever reads a terminal sees the first; -o json has more of them.
_MOST_SHOWN: Final = 10
# So many that are skipped for one reason, such as a mesh that is not installed, are one line.
_MANY_ALIKE: Final = 3
_MARKS: Final = {Status.PASS: "✓", Status.WARNING: "‼", Status.FAILURE: "×", Status.SKIPPED: "–"}
_ADJECTIVES: Final = {
    Status.PASS: "passed",
    Status.WARNING: "with a warning",
    Status.FAILURE: "failed",
    Status.SKIPPED: "skipped",
}
Found = Mapping[Check[Any], Finding]


def as_lines(found: Found) -> str:
    """For people: by group, a line for each check, what it is about, and behind an arrow what to do; then the count."""
    width = max((len(check.name) for check in found), default=0)
    lines: list[str] = []
    for group in dict.fromkeys(check.group for check in found):
        within = {check: one for check, one in found.items() if check.group is group}
        lines += [group.value, *_of_group(within, width), ""]
    return "\n".join([*lines, summary(found)])


def _of_group(found: Found, width: int) -> Iterator[str]:
    reasons = Counter(one.detail for one in found.values() if one.status is Status.SKIPPED)
    for check, one in found.items():
        if one.status is Status.SKIPPED and reasons[one.detail] >= _MANY_ALIKE:
            continue
        yield f"{_MARKS[one.status]} {check.name:<{width}}  {one.detail}"
        yield from (f"    {text}" for text in _shown(one))
        if one.fix:
            yield f"    → {one.fix}"
    for reason, count in reasons.items():
        if count >= _MANY_ALIKE:
            yield f"{_MARKS[Status.SKIPPED]} {f'{count} skipped':<{width}}  {reason}"


def summary(found: Found) -> str:
    """How many of which status."""
    count = Counter(one.status for one in found.values())
    parts = [f"{count[status]} {_ADJECTIVES[status]}" for status in Status if count[status]]
    return f"{several(len(found), 'check')}: {', '.join(parts) or 'none was run'}"


def as_json(found: Found) -> str:
    """For programs: name → group, status, detail, fix, items (docs/check.md). Fields may be added, none is changed."""
    return json.dumps(
        {
            check.name: {
                "group": check.group.value,
                "status": one.status.value,
                "detail": one.detail,
                "fix": one.fix,
                "items": list(one.items),
            }
            for check, one in found.items()
        },
        indent=2,
    )


def _shown(one: Finding) -> Iterator[str]:
    if one.status is Status.PASS:
        return
    yield from one.items[:_MOST_SHOWN]
    if len(one.items) > _MOST_SHOWN:
        yield f"… and more: -o json has {len(one.items)} of them"
