"""The access log: a line per event on standard output, as JSON or for people; it never makes the data path wait."""

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

# json.dumps() would make an encoder for each line.
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode

Fields = dict[str, str | int | float | bool | None]


class AccessLog:
    """Writes lines to a descriptor that it does not own, or nowhere. `on_drop` is called for each line that is lost."""

    def __init__(self, fd: int | None, on_drop: Callable[[], None], form: str = "json") -> None:
        """`form` is one of config.ACCESS_LOG_FORMATS."""
        self._is_off = form == "off"
        self._encode = _as_text if form == "text" else _as_json
        self._on_drop = on_drop
        self._lines = None if fd is None else LineWriter(fd, on_drop, _say_that_it_ended)

    def write(self, fields: Fields) -> None:
        """Write one line, now or as soon as the reader has made room."""
        if not self._is_off:
            self.write_line(_line(self._encode, fields))

    def write_line(self, line: bytes) -> None:
        """Write a line that is made already, as `write` would have made it: whole, with its end."""
        if self._is_off:
            return
        if self._lines is None:
            self._on_drop()
        else:
            self._lines.write(line)

    def close(self) -> None:
        """Write what can be written without waiting; the rest is counted as dropped."""
        if self._lines is not None:
            self._lines.close()


def _say_that_it_ended(error: OSError) -> None:
    _log.error("no access log from here on, standard output cannot be written: %s", error.strerror)


def _line(encode: Callable[[Fields, int], bytes], fields: Fields) -> bytes:
    """`fields` as one line of at most MAX_LINE bytes."""
    line = encode(fields, MAX_LINE)
    limit = _MAX_FIELD
    while len(line) > MAX_LINE:
        line = encode(fields, limit)
        limit //= 2
    return line


def _as_json(fields: Fields, limit: int) -> bytes:
    line = to_json(fields)
    # Where JSON has escaped nothing and everything can be printed, every string in it is as it should be shown.
    if len(line) <= limit and "\\" not in line and line.isprintable():
        return line.encode() + b"\n"
    shown = {key: printable(value, limit) if isinstance(value, str) else value for key, value in fields.items()}
    return to_json(shown).encode() + b"\n"


def _as_text(fields: Fields, limit: int) -> bytes:
    """name=value, without those that have none; a value that would be ambiguous stands in quotes, as in JSON."""
    words = []
    for key, value in fields.items():
        if value is None or value == "":
            continue
        shown = printable(value, limit) if isinstance(value, str) else to_json(value)
        plain = not any(character in shown for character in ' "=\\')
        words.append(f"{key}={shown if plain else to_json(shown)}")
    return " ".join(words).encode() + b"\n"
