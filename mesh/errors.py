"""The one error that every program shares: something that its user can mend."""

from __future__ import annotations


class UserError(Exception):
    """What a user gave cannot work: a flag, a file, a port, a permission.

    The message is one line that says what is wrong and what to do; the command line prints it and exits with 2.
    """


def shown(value: object) -> str:
    """`value` for one line of text: quoted where it holds line breaks, control characters or stray bytes."""
    text = str(value)
    return text if text.isprintable() else repr(text)
