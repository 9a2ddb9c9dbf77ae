"""The access log's busiest line, prepared: of connections of one kind all but a few fields are the same.

As bytes they are those that AccessLog.write would write, at a third of its cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Final

from proxy.access_log import AccessLog, Fields, to_json
from proxy.lines import MAX_LINE

# What each line has of its own, in the order in which a line has them: the line of a handshake, and the last line of a
# connection that had one of its own, and of one that a tunnel carried.
OF_HANDSHAKE: Final = ("time", "source", "connection_id", "handshake_ms")
OF_CONNECTION: Final = (
    "time", "source", "connection_id", "duration_ms", "handshake_ms", "bytes_sent", "bytes_received"
)  # fmt: skip
OF_STREAM: Final = ("time", "source", "connection_id", "duration_ms", "bytes_sent", "bytes_received")
# What these take at most: a time, two addresses' worth of source, an id, and four numbers.
_ROOM: Final = 256
# Kinds are combinations of peer, destination and policy: a sidecar has a few.
_MOST_KINDS: Final = 128
# Addresses and ports, as accept(2) has them. What else a name may be made of is for AccessLog.write to escape.
_is_plain = re.compile(r"[0-9A-Za-z.:%_\[\]-]{1,80}\Z").match

Own = tuple[str, str, str, float] | tuple[str, str, str, float, int, int] | tuple[str, str, str, float, float, int, int]


class PreparedLines:
    """Writes to `log`, whose form is JSON."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log
        self._kinds: dict[Hashable, tuple[str, object]] = {}

    def write(
        self, names: tuple[str, ...], kind: Hashable, own: Own, fields: Callable[[], Fields], *, kept: object = None
    ) -> None:
        """Write fields(), in which `own` stands for the fields `names` (one of OF_…); the others are those of its
        `kind`, which belongs to these names alone.

        `kept` is kept as long as the kind is known: a kind may hold its id().
        """
        found = self._kinds.get(kind)
        if found is None:
            found = self._learn(names, kind, kept, fields())
        form, _ = found
        if form and _is_plain(own[1]):
            self._log.write_line((form % own).encode())
        else:
            self._log.write(fields())

    def _learn(self, names: tuple[str, ...], kind: Hashable, kept: object, fields: Fields) -> tuple[str, object]:
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        found = self._kinds[kind] = (_form(names, fields), kept)
        return found


def _form(names: tuple[str, ...], fields: Fields) -> str:
    """A format for the values of `names`; "" where a line of this kind has something to be escaped or cut."""
    parts = []
    for name, value in fields.items():
        own = '"%s"' if isinstance(value, str) else "%s"
        parts.append(f"{_escaped(name)}:{own if name in names else _escaped(value)}")
    line = "{" + ",".join(parts) + "}"
    is_plain = "\\" not in line and line.isprintable()
    return f"{line}\n" if is_plain and len(line.encode()) <= MAX_LINE - _ROOM else ""


def _escaped(value: object) -> str:
    """As JSON, and as it is within a format."""
    return to_json(value).replace("%", "%%")
