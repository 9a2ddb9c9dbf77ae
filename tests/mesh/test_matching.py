"""What a text with a wildcard matches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.matching import Texts


@pytest.mark.parametrize(
    ("value", "text", "matches"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("a", "ab", False),
        ("*", "a", True),
        ("*", "", False),
        ("a*", "a", True),
        ("a*", "ab", True),
        ("a*", "ba", False),
        ("*a", "a", True),
        ("*a", "ba", True),
        ("*a", "ab", False),
        ("a*b", "a*b", True),
        ("a*b", "axb", False),
        ("**", "a*", True),
        ("**", "a", False),
        ("*a*", "xa*", True),
        ("*a*", "xax", False),
    ],
)
def test_a_star_means_something_at_one_end_alone(value: str, text: str, matches: bool) -> None:
    assert Texts.of([value]).match(text) is matches


def test_presence_may_include_the_empty_text() -> None:
    assert Texts.of(["*"], empty=True).match("")
    assert not Texts.of(["a"], empty=True).match("")


@given(st.lists(st.text(alphabet="ab*", min_size=1, max_size=4), max_size=5), st.text(alphabet="ab*", max_size=5))
def test_several_values_match_what_one_of_them_does(values: list[str], text: str) -> None:
    assert Texts.of(values).match(text) is any(Texts.of([value]).match(text) for value in values)
