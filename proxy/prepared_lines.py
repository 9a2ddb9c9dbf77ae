"""The access log's busiest line, prepared: of connections of one kind all but a few fields are the same.

As bytes they are those that AccessLog.write would write, at a third of its cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Final

from proxy.access_log import AccessLog, Fields, to_json
from proxy.lines import MAX_LINE

# What each line has of its own, in the order in which a line has them.
OWN: Final = ("time", "source", "connection_id", "duration_ms", "bytes_sent", "bytes_received")
# What these take at most: a time, two addresses' worth of source, an id, and three numbers.
_ROOM: Final = 256
# Kinds are combinations of peer, destination and policy: a sidecar has a few.
_MOST_KINDS: Final = 128
# Addresses and ports, as accept(2) has them. What else a name may be made of is for AccessLog.write to escape.
_is_plain = re.compile(r"[0-9A-Za-z.:%_\[\]-]{1,80}\Z").match

Own = tuple[str, str, str, float, int, int]


class PreparedLines:
    """Writes to `log`, whose form is JSON."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log
        self._kinds: dict[Hashable, tuple[str, object]] = {}

    def write(self, kind: Hashable, kept: object, own: Own, fields: Callable[[], Fields]) -> None:
        """Write fields(), in which `own` stands for the fields of OWN; the others are those of its `kind`.

        `kept` is kept as long as the kind is known: a kind may hold its id().
        """
        found = self._kinds.get(kind)
        if found is None:
            found = self._learn(kind, kept, fields())
        form, _ = found
        if form and _is_plain(own[1]):
            self._log.write_line((form % own).encode())
        else:
            self._log.write(fields())

    def _learn(self, kind: Hashable, kept: object, fields: Fields) -> tuple[str, object]:
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        found = self._kinds[kind] = (_form(fields), kept)
        return found


def _form(fields: Fields) -> str:
    """A format for the values of OWN; "" where a line of this kind has something to be escaped or cut."""
    parts = []
    for name, value in fields.items():
        own = '"%s"' if isinstance(value, str) else "%s"
        parts.append(f"{to_json(name)}:{own if name in OWN else to_json(value).replace('%', '%%')}")
    line = "{" + ",".join(parts) + "}"
    is_plain = "\\" not in line and line.isprintable()
    return f"{line}\n" if is_plain and len(line.encode()) <= MAX_LINE - _ROOM else ""
