"""As many connections as there are descriptors for."""

from __future__ import annotations

import logging
import resource
from typing import Final

# Descriptors besides those of connections: handshakes under way, listeners, the store, a scrape or two.
_SPARE: Final = 1280

_log = logging.getLogger("qbitel.httpd")


def room_for(connections: int) -> int:
    """Raise the limit of open files to what so many need; return how many it has room for."""
    wanted = connections + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    possible = wanted if hard == resource.RLIM_INFINITY else max(soft, min(hard, wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible >= wanted:
        return connections
    room = max(possible - _SPARE, possible // 2)
    _log.warning("the limit of open files is %d: room for %d connections (ulimit -Hn raises it)", possible, room)
    return room
