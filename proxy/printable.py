"""The last line of defence between a stranger's words and our logs: printable and bounded, whatever was sent."""

from __future__ import annotations

from typing import Final

# A SPIFFE ID has at most 2048 bytes; a sentence of ours around one fits, too.
MAX_MESSAGE: Final = 2600


def printable(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return `text` with at most `limit` characters, all printable: one line, and no command to a terminal.

    Control and format characters, line separators and lone surrogates become escapes such as \\n or \\u202e.
    """
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text[:limit]
    )
    return shown if len(text) <= limit and len(shown) <= limit else shown[: limit - 1] + "…"
