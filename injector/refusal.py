"""Why a pod cannot be given a sidecar: something that its author can mend."""

from __future__ import annotations

from mesh.errors import UserError


class PodRefused(UserError):
    """The pod must not run as it is: injected, it would not work or not be safe. The message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """`text`, which may have words of a stranger in it, as one line for a terminal, a log or an HTTP header."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
