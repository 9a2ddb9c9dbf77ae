"""The error that every program shares."""

from __future__ import annotations

from mesh.errors import UserError


def test_a_user_error_says_just_its_one_line() -> None:
    assert str(UserError("port 15001 is in use; stop what listens there")) == (
        "port 15001 is in use; stop what listens there"
    )


def test_a_user_error_is_no_error_of_the_operating_system_or_of_a_value() -> None:
    """A program that handles those must not handle this one by accident: it is for the command line alone."""
    assert UserError.__mro__[1:] == (Exception, BaseException, object)
