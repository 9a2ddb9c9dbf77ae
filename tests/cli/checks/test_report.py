"""How findings are shown."""

from __future__ import annotations

import json

from cli.checks import report
from cli.checks.findings import Check, Group, failure, passed, skipped, warning


def row(name: str, group: Group) -> Check[object]:
    return Check(name, group, "about it", lambda _facts: passed("fine"))


def test_people_see_groups_marks_items_and_what_to_do() -> None:
    found = {
        row("a", Group.MACHINE): passed("fine", ["not shown"]),
        row("bc", Group.CLUSTER): warning("not so", "do this", ["one"]),
        row("d", Group.CLUSTER): failure("bad", "do that"),
    }
    assert report.as_lines(found).splitlines() == [
        "machine",
        "✓ a   fine",
        "",
        "cluster",
        "‼ bc  not so",
        "    one",
        "    → do this",
        "× d   bad",
        "    → do that",
        "",
        "3 checks: 1 passed, 1 with a warning, 1 failed",
    ]


def test_what_is_skipped_for_one_reason_is_one_line() -> None:
    found = {row(name, Group.TRUST): skipped("not installed") for name in ("a", "b", "c")}
    assert report.as_lines(found).splitlines()[1:2] == ["– 3 skipped  not installed"]
    assert len(json.loads(report.as_json(found))) == 3


def test_of_many_items_ten_are_shown() -> None:
    found = {row("a", Group.DATA): failure("bad", "fix", [f"pod {number}" for number in range(60)])}
    text = report.as_lines(found)
    assert "pod 9\n" in text
    assert "pod 10\n" not in text
    assert "60 of them" in text


def test_programs_get_every_field() -> None:
    found = {row("a", Group.DATA): failure("bad", "fix", ["x"])}
    assert json.loads(report.as_json(found)) == {
        "a": {"group": "data-plane", "status": "failure", "detail": "bad", "fix": "fix", "items": ["x"]}
    }
