"""One line when something begins to fail, one when its failure becomes another, one when it works again."""

from __future__ import annotations

import logging

_log = logging.getLogger("qbitel.proxy")


class Outage:
    """The state of something that is tried again and again, told by its changes and not by its tries."""

    def __init__(self, failing: str, working: str) -> None:
        self._failing = failing
        self._working = working
        self._kind = ""

    def begins(self, kind: str, why: str) -> None:
        """A try failed in the way `kind`. Said unless the last one failed in the same way."""
        if kind != self._kind:
            self._kind = kind
            _log.warning("%s: %s", self._failing, why)

    def ends(self) -> None:
        """A try succeeded. Said where the last one had failed."""
        if self._kind:
            self._kind = ""
            _log.info("%s", self._working)
