"""Findings: one line each, bounded, and skipped where something is not known."""

from __future__ import annotations

from cli.checks.findings import (
    MOST_ITEMS,
    Check,
    Finding,
    Group,
    Status,
    Unknown,
    failure,
    named,
    passed,
    several,
    skipped,
    warning,
)


def test_what_cannot_be_known_is_skipped_with_the_reason() -> None:
    def judge(_facts: object) -> Finding:
        raise Unknown("no right to list nodes")

    found = Check("nodes", Group.CLUSTER, "nodes", judge).run(None)
    assert found == skipped("no right to list nodes")


def test_each_kind_has_its_status() -> None:
    made = [passed("a"), warning("a", "b"), failure("a", "b"), skipped("a")]
    assert [one.status for one in made] == [Status.PASS, Status.WARNING, Status.FAILURE, Status.SKIPPED]


def test_a_stranger_s_words_stay_one_line_of_bounded_length() -> None:
    found = failure("a\x1b[31m\nb" + "c" * 1000, "fix", ["x\ny"])
    assert found.detail.isprintable()
    assert len(found.detail) == 500
    assert found.items == ("x\N{REPLACEMENT CHARACTER}y",)


def test_of_many_items_the_first_are_kept_and_the_rest_is_counted() -> None:
    items = warning("a", "b", [str(number) for number in range(MOST_ITEMS + 50)]).items
    assert len(items) == MOST_ITEMS
    assert items[-1] == "… and 51 more"
    assert len(warning("a", "b", ["x"] * MOST_ITEMS).items) == MOST_ITEMS


def test_numbers_come_with_their_words() -> None:
    assert several(1, "pod") == "1 pod"
    assert several(2000, "pod") == "2,000 pods"
    assert several(2, "policy", "policies") == "2 policies"
    assert named(["a", "b", "c"], most=2) == "a, b and 1 more"
