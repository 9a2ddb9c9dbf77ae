"""`qbitel`, but nothing is ever resumed: what a full handshake costs is measured with this."""

from __future__ import annotations

import sys
from types import ModuleType

from cli import main
from pqtls import Session
from proxy import binding, server
from proxy.sessions import Key, SessionStore


class _Forgets(SessionStore):
    def keep(self, key: Key, session: Session) -> None:
        """Do not."""


def _no_tickets(_provider: object) -> None:
    """A server whose TicketKeeper is None gives none."""


def _put(module: ModuleType, name: str, other: object) -> None:
    """In the place of `module.name`; AttributeError where it has moved, so that nothing else is measured unseen."""
    getattr(module, name)
    setattr(module, name, other)


if __name__ == "__main__":
    _put(server, "SessionStore", _Forgets)
    _put(binding, "TicketKeeper", _no_tickets)
    sys.exit(main.main())
