"""A refusal is an error that a user can mend, told in one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from injector.refusal import PodRefused, one_line
from mesh.errors import UserError


def test_a_refusal_is_shown_as_every_error_of_a_user() -> None:
    assert issubclass(PodRefused, UserError)


@given(st.text())
def test_whatever_a_stranger_wrote_is_one_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert str(PodRefused(text)) == one_line(text)
