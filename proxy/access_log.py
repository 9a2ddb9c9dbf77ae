"""The access log: one JSON object per line on standard output, which never makes the data path wait."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Final

from proxy.lines import MAX_LINE, LineWriter
from proxy.printable import printable

# A line that is too long has its strings cut to this many characters, and to half as many until it fits: our own keys
# and numbers take some 600 bytes, and a character at most six.
_MAX_FIELD: Final = 800

_log = logging.getLogger("qbitel.proxy")

Fields = dict[str, str | int | float | bool | None]


class AccessLog:
    """Writes lines to a descriptor that it does not own, or nowhere. `on_drop` is called for each line that is lost."""

    def __init__(self, fd: int | None, on_drop: Callable[[], None]) -> None:
        self._on_drop = on_drop
        self._lines = None if fd is None else LineWriter(fd, on_drop, _say_that_it_ended)

    def write(self, fields: Fields) -> None:
        """Write one line, now or as soon as the reader has made room."""
        if self._lines is None:
            self._on_drop()
        else:
            self._lines.write(_line(fields))

    def close(self) -> None:
        """Write what can be written without waiting; the rest is counted as dropped."""
        if self._lines is not None:
            self._lines.close()


def _say_that_it_ended(error: OSError) -> None:
    _log.error("no access log from here on, standard output cannot be written: %s", error.strerror)


def _line(fields: Fields) -> bytes:
    """`fields` as one line of at most MAX_LINE bytes."""
    line = _encode(fields, MAX_LINE)
    limit = _MAX_FIELD
    while len(line) > MAX_LINE:
        line = _encode(fields, limit)
        limit //= 2
    return line


def _encode(fields: Fields, limit: int) -> bytes:
    shown = {key: printable(value, limit) if isinstance(value, str) else value for key, value in fields.items()}
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
