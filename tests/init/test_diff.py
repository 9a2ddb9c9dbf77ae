"""The difference that `qbitel init --diff` shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from init.config import InterceptionConfig
from init.diff import difference_text
from init.foreign import EVERY_MESH
from init.plan import make_plan
from init.render import plan_text
from init.rules import Family, empty_plan
from init.state import differences, parse_save
from mesh.errors import UserError

PLAN = make_plan(InterceptionConfig(drop_invalid=True), Family.V4)
SAVED = plan_text(PLAN).replace("-I PREROUTING 1", "-A PREROUTING").replace("-I OUTPUT 1", "-A OUTPUT")


def _changes(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[0] in "+-" and not line.startswith(("+++", "---"))]


def test_what_stands_has_no_difference() -> None:
    assert difference_text(PLAN, parse_save(SAVED), "nft") == ""


def test_an_empty_namespace_lacks_everything() -> None:
    changes = _changes(difference_text(PLAN, parse_save(""), "nft"))
    chains = sum(len(table.chains) for table in PLAN.tables)
    assert len(changes) == PLAN.rules + chains
    assert all(line.startswith("+") for line in changes)


def test_for_a_cleanup_everything_is_taken_away() -> None:
    changes = _changes(difference_text(empty_plan(Family.V4), parse_save(SAVED), "nft"))
    assert len(changes) == len([line for line in SAVED.splitlines() if line[0] in ":-"])
    assert all(line.startswith("-") for line in changes)


def test_one_changed_rule_is_two_lines_under_the_name_of_its_table() -> None:
    text = difference_text(PLAN, parse_save(SAVED.replace("--dport 15090", "--dport 15091")), "legacy")
    assert text.splitlines()[:2] == ["--- present ipv4 nat (legacy)", "+++ wanted ipv4 nat (legacy)"]
    old, new = _changes(text)
    assert old.startswith("--A QBITEL_INBOUND -p tcp -m tcp --dport 15091")
    assert new.startswith("+-A QBITEL_INBOUND -p tcp -m tcp --dport 15090")


def test_another_spelling_of_a_rule_is_no_change_even_beside_one() -> None:
    saved = SAVED.replace("-p tcp -m tcp --dport 15021", "-p 6 --dport 15021").replace("--dport 15090", "--dport 15091")
    assert len(_changes(difference_text(PLAN, parse_save(saved), "nft"))) == 2


def test_a_foreign_rule_that_got_in_front_moves_behind() -> None:
    saved = SAVED.replace("-A OUTPUT ", "-A OUTPUT -p tcp -j ACCEPT\n-A OUTPUT ")
    changes = _changes(difference_text(PLAN, parse_save(saved), "nft"))
    # One of the two is shown to change its place, whichever the difference takes.
    assert sorted(line[0] for line in changes) == ["+", "-"]
    assert len({line[1:] for line in changes}) == 1


def test_rules_of_others_are_shown_only_where_they_are_ours_to_remove() -> None:
    saved = SAVED.replace("COMMIT\n", ":ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\n-A OUTPUT -j LOG\nCOMMIT\n", 1)
    assert difference_text(PLAN, parse_save(saved), "nft") == ""
    changes = _changes(difference_text(PLAN, parse_save(saved), "nft", EVERY_MESH))
    assert changes == ["-:ISTIO_OUTPUT", "--A OUTPUT -j ISTIO_OUTPUT"]


@given(st.data())
def test_there_is_a_text_exactly_where_something_differs(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(SAVED)))
    cut = SAVED[:start] + data.draw(st.sampled_from(["", "-A OUTPUT -j X\n", "!", "*nat\n"])) + SAVED[start + 3 :]
    try:
        state = parse_save(cut)
    except UserError:
        return
    assert bool(difference_text(PLAN, state, "nft")) == bool(differences(PLAN, state))


@pytest.mark.parametrize("hook", ["PREROUTING", "OUTPUT", "INPUT"])
def test_a_jump_where_none_belongs_is_taken_away(hook: str) -> None:
    saved = SAVED.replace("*nat\n", f"*nat\n-A {hook} -p udp -j QBITEL_INBOUND\n")
    assert f"--A {hook} -p udp -j QBITEL_INBOUND" in _changes(difference_text(PLAN, parse_save(saved), "nft"))
