"""The API's connections: how long, how much, and what is answered where no handler was asked."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from typing import Final

from aiohttp import web

from certmgr import limits, wire
from certmgr.proofs import MAX_TOKEN_SIZE, Reason, Refused
from httpd.connection import Limits, Terms
from httpd.connection_table import ConnectionTable

# One header carries a token; what aiohttp counts with it is its name and "Bearer ".
_MAX_HEADER: Final = MAX_TOKEN_SIZE + 256
# Of a body that is read ahead: it is ten thousand connections that may do so.
_READ_AHEAD: Final = 16 * 1024


def terms_of(
    identified: ConnectionTable,
    anonymous: ConnectionTable,
    now: Callable[[], datetime.datetime],
    on_malformed: Callable[[Refused, str], None],
) -> Terms:
    """What holds for all of them. `on_malformed` is told of what is no HTTP, and from where it came.

    Peers with a certificate have a table of their own: strangers cannot take their places.
    """

    def table_of(transport: asyncio.BaseTransport) -> ConnectionTable:
        return identified if transport.get_extra_info("peer_identity") else anonymous

    allowed = Limits(idle_seconds=limits.IDLE_SECONDS, header_size=_MAX_HEADER, read_ahead=_READ_AHEAD)
    return Terms(allowed, _ApiErrors(now, on_malformed), table_of)


class _ApiErrors:
    """In the form of all the API's answers."""

    def __init__(self, now: Callable[[], datetime.datetime], on_malformed: Callable[[Refused, str], None]) -> None:
        self._now = now
        self._on_malformed = on_malformed

    def malformed(self, source: str) -> web.Response:
        """To what is no HTTP."""
        refused = Refused(Reason.BAD_REQUEST, "this is no HTTP/1.1 request that can be read")
        self._on_malformed(refused, source)
        return self._answer(400, refused.reason.slug, str(refused))

    def failed(self) -> web.Response:
        """Where a bug failed a request behind its handler."""
        return self._answer(500, "internal", "the authority has a bug; its log says more")

    def _answer(self, status: int, slug: str, text: str) -> web.Response:
        return web.Response(status=status, body=wire.refusal(slug, text, self._now()), content_type="application/json")
