"""The sessions that servers gave us to resume, by destination: bounded, each used once, the newest first."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Hashable
from typing import Final

from pqtls import Session
from proxy.config import Endpoint

# As many connections to one destination as are opened at once without a full handshake. A handshake brings two tickets
# and uses one up, so that the store fills by itself.
PER_DESTINATION: Final = 16
# Of all together, in bytes. With the two tickets of one of our own servers a destination takes 2.3 KB, so that some
# 1,800 fit; how large others are is for their servers to say (up to 20 KB of ticket each), and must not be for them to
# say what we hold.
CAPACITY: Final = 4 << 20
# Bytes of a session's objects besides its ticket, and of a destination's besides its sessions, as tracemalloc has them.
_SESSION: Final = 600
_DESTINATION: Final = 700

# Where to; who may be there, and by which profile; and who we are (Bundle.certificates_id): the server remembers us by
# the certificate that we showed, so that a session must not outlive our own rotation.
Key = tuple[Endpoint, Hashable, bytes]


class SessionStore:
    """Sessions of one process. Where it is full, the destination that was used least recently is forgotten."""

    def __init__(self, capacity: int = CAPACITY, per_destination: int = PER_DESTINATION) -> None:
        self._capacity = capacity  # bytes
        self._per_destination = per_destination
        # Lists, because an empty deque takes as much as a session does.
        self._kept: collections.OrderedDict[Key, list[Session]] = collections.OrderedDict()
        self._count = 0
        self._size = 0

    def __len__(self) -> int:
        return self._count

    def keep(self, key: Key, session: Session) -> None:
        """Remember `session` for a later connection; the oldest of its destination goes where there are too many."""
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = []
            self._size += _DESTINATION
        self._kept.move_to_end(key)
        kept.append(session)
        self._account(session, 1)
        if len(kept) > self._per_destination:
            self._account(kept.pop(0), -1)
        while self._size > self._capacity:
            _, forgotten = self._kept.popitem(last=False)
            self._size -= _DESTINATION
            for one in forgotten:
                self._account(one, -1)

    def take(self, key: Key, now: datetime.datetime) -> tuple[Session, ...]:
        """Hand out the newest session that is still of use, which is forgotten here; or none."""
        kept = self._kept.get(key)
        if kept is None:
            return ()
        self._kept.move_to_end(key)
        found: tuple[Session, ...] = ()
        while kept and not found:
            session = kept.pop()
            self._account(session, -1)
            if session.is_usable(now):
                found = (session,)
        if not kept:
            del self._kept[key]
            self._size -= _DESTINATION
        return found

    def _account(self, session: Session, sign: int) -> None:
        self._count += sign
        self._size += sign * (_SESSION + len(session.ticket))
