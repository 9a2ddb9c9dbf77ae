"""`qbitel`, but nothing is ever resumed: what a full handshake costs is measured with this."""

from __future__ import annotations

import sys

from cli import main
from pqtls import Session
from proxy import server
from proxy.sessions import Key, SessionStore


class _Forgets(SessionStore):
    def keep(self, key: Key, session: Session) -> None:
        """Do not."""


def _no_tickets(_provider: object) -> None:
    """A server whose TicketKeeper is None gives none."""


if __name__ == "__main__":
    server.SessionStore = _Forgets  # type: ignore[misc]
    server.TicketKeeper = _no_tickets  # type: ignore[assignment, misc]
    sys.exit(main.main())
