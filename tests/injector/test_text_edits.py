"""Values changed inside text, and every other byte as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from injector.text_edits import CannotEdit, Edit, Editor, apply_edits, compose, end_of
from mesh.documents import read_documents, to_yaml


def edited(text: str, new: dict[str, Any]) -> str:
    (document,), problems = read_documents(text.encode(), "")
    assert problems == ()
    editor = Editor(text)
    editor.change(compose(text)[0], document.value, new)
    return apply_edits(text, editor.edits)


def reads_as(text: str) -> Any:
    (document,), problems = read_documents(text.encode(), "")
    assert problems == ()
    return document.value


@pytest.mark.parametrize(
    ("before", "new", "after"),
    [
        ("a: 1  # one\n", {"a": 2}, "a: 2  # one\n"),
        ("a: '1'\n", {"a": "it's"}, "a: 'it''s'\n"),
        ('a: "1"\n', {"a": "2"}, 'a: "2"\n'),
        ("a: x\n", {"a": "1"}, 'a: "1"\n'),
        ("a: 1\n# end\n", {"a": 1, "b": 2}, "a: 1\nb: 2\n# end\n"),
        ("a: 1\nb: 2\n", {"a": 1}, "a: 1\n"),
        ("a: 1\nb: 2\nc: 3\n", {"a": 1, "c": 3}, "a: 1\nc: 3\n"),
        ("a:\n  b: 1\nc: 1\n", {"a": {"b": 1, "d": [1]}, "c": 1}, "a:\n  b: 1\n  d:\n  - 1\nc: 1\n"),
        ("a:\n- b: 1\n", {"a": [{"b": 1}, {"c": 2}]}, "a:\n- b: 1\n- c: 2\n"),
        ("a:\n  - b\n", {"a": ["x", "b"]}, "a:\n  - x\n  - b\n"),
        ("a:\n# of b\n- b\n", {"a": ["x", "b"]}, "a:\n- x\n# of b\n- b\n"),
        ("a:\n- x\n- b\n", {"a": ["b"]}, "a:\n- b\n"),
        ("a: [1, 2]\n", {"a": [0, 1, 2, 3]}, "a: [0, 1, 2, 3]\n"),
        ("a: [1, 2, 3]\n", {"a": [2]}, "a: [2]\n"),
        ("a: {b: 1}\n", {"a": {"b": 1, "c": "x"}}, 'a: {b: 1, "c": "x"}\n'),
        ("a: {b: 1, c: 2}\n", {"a": {"c": 2}}, "a: {c: 2}\n"),
        ("a: {}\n", {"a": {"b": 1}}, 'a: {"b": 1}\n'),
        ("a:\nb: 1\n", {"a": {"c": 1}, "b": 1}, "a:\n  c: 1\nb: 1\n"),
        ("a: # why\n", {"a": [1]}, "a: # why\n- 1\n"),
        ("t: {p: 1}\n", {"h": {"p": "/x", "q": "1"}}, 'h: {p: /x, q: "1"}\n'),
        ("x:\n  t:\n    p: 1\n", {"x": {"h": {"p": 2}}}, "x:\n  h:\n    p: 2\n"),
        ("a:\n- |\n  text\n\nb: 1\n", {"a": ["text\n", "x"], "b": 1}, "a:\n- |\n  text\n\n- x\nb: 1\n"),
        ("a: ü # ö\nb: 😀\n", {"a": "ü", "b": "x"}, "a: ü # ö\nb: x\n"),
        ("a: 1\r\nb:\r\n- 1\r\n", {"a": 1, "b": [1, 2]}, "a: 1\r\nb:\r\n- 1\r\n- 2\r\n"),
    ],
)
def test_an_edit_changes_what_it_must_and_nothing_else(before: str, new: dict[str, Any], after: str) -> None:
    assert edited(before, new) == after
    assert reads_as(after) == new


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("a: |\n  x\n", {"a": "y"}),
        ("a:\n  b: 1\n", {"a": 1}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1, "d": 1}}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}, "d": 1}),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", {"a": {"b": 1}, "c": {"b": 1, "d": 1}}),
        ("a: [1]\nb: 1\n", {"a": [2], "b": 1}),
    ],
)
def test_what_cannot_be_edited_in_place_says_so_or_comes_out_right(text: str, new: dict[str, Any]) -> None:
    try:
        after = edited(text, new)
    except CannotEdit:
        return
    assert reads_as(after) == new


def test_edits_that_overlap_are_refused() -> None:
    with pytest.raises(CannotEdit):
        apply_edits("abc", [Edit(0, 2, ""), Edit(1, 3, "")])


def test_edits_at_one_place_keep_their_order() -> None:
    assert apply_edits("ab", [Edit(1, 1, "1"), Edit(1, 1, "2"), Edit(0, 1, "")]) == "12b"


def test_the_end_of_a_block_is_before_the_comments_behind_it() -> None:
    text = "a:\n  b: 1 \n\n# of c\nc: 2\n"
    (root,) = compose(text)
    assert isinstance(root, yaml.MappingNode)

    assert end_of(text, root.value[0][1]) == text.index(" \n")


VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list("abcd")), inner, max_size=3),
    max_leaves=8,
)
ROOT = st.dictionaries(st.sampled_from(list("abcd")), VALUE, min_size=1, max_size=3)


@given(ROOT, ROOT, st.booleans())
def test_any_value_becomes_any_other_or_is_refused(old: dict[str, Any], new: dict[str, Any], as_json: bool) -> None:
    text = json.dumps(old, indent=1, ensure_ascii=False) + "\n" if as_json else to_yaml(old)
    try:
        after = edited(text, new)
    except CannotEdit:
        return

    assert reads_as(after) == new


@given(ROOT, ROOT)
def test_appending_and_taking_out_again_gives_the_bytes(old: dict[str, Any], more: dict[str, Any]) -> None:
    text = to_yaml(old) + "# end"
    added = {**old, **{f"x{name}": value for name, value in more.items()}}

    assert edited(edited(text + "\n", added), old) == text + "\n"
