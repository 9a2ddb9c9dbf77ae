"""One HTTP connection: aiohttp's, with the limits that it does not have and with answers in our form.

It rides on any transport: aiotls' for the API, asyncio's for metrics and health.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from certmgr import limits, wire
from certmgr.limits import ConnectionTable
from certmgr.proofs import MAX_TOKEN_SIZE, Reason, Refused

# One header carries a token; what aiohttp counts with it is its name and "Bearer ".
_MAX_HEADER: Final = MAX_TOKEN_SIZE + 256
_MAX_HEADERS: Final = 64
# Of a body that aiohttp reads ahead before it stops reading from the connection.
_READ_AHEAD: Final = 16 * 1024

_log = logging.getLogger("qbitel.certmgr")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all connections of a server share. `on_malformed` is told of what is no HTTP, and from where it came.

    Peers with a certificate have a table of their own: strangers cannot take their places.
    """

    identified: ConnectionTable
    anonymous: ConnectionTable
    now: Callable[[], datetime.datetime]
    on_malformed: Callable[[Refused, str], None]


class HttpConnection(web.RequestHandler):
    """Counted, closed when it is silent, slow or old, and never a reason for a traceback in the log."""

    __slots__ = ("_around", "_made_at", "_table", "_write_timer", "on_lost", "source")

    def __init__(self, server: web.Server, around: Surroundings) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.IDLE_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # documented: no access log
            max_field_size=_MAX_HEADER,
            max_headers=_MAX_HEADERS,
            lingering_time=limits.LINGER_SECONDS,
            read_bufsize=_READ_AHEAD,
            # 64 KiB that were compressed are as many megabytes; no client of ours compresses.
            auto_decompress=False,
        )
        self._around = around
        self._table = around.anonymous
        self._made_at = self._loop.time()
        self._write_timer: asyncio.TimerHandle | None = None
        self.source = "-"
        # Called once when the connection is gone: for who waits on behalf of a request, and would wait on.
        self.on_lost: Callable[[], None] | None = None

    @property
    def is_old(self) -> bool:
        """Whether its next answer should be its last."""
        return self._loop.time() - self._made_at > limits.MAX_AGE_SECONDS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place in the table, perhaps another connection's."""
        peer = transport.get_extra_info("peername")
        self.source = str(peer[0]) if peer else "-"
        if transport.get_extra_info("peer_identity"):
            self._table = self._around.identified
        self._table.add(self, self.source, self.force_close)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self._table.remove(self)
        self._stop_write_timer()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Something came: a sign of life."""
        self._table.heard(self)
        super().data_received(data)

    def pause_writing(self) -> None:
        """The client does not read what we answer: for so long, and no longer."""
        super().pause_writing()
        self._write_timer = self._loop.call_later(limits.WRITE_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self._stop_write_timer()
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached a handler: bytes that are no HTTP, or a fault of ours behind the handlers."""
        if isinstance(exc, HttpProcessingError):
            # aiohttp's own message repeats what was sent; whoever sent it knows.
            refused = Refused(Reason.BAD_REQUEST, "this is no HTTP/1.1 request that can be read")
            self._around.on_malformed(refused, self.source)
            status, slug, text = 400, refused.reason.slug, str(refused)
        else:
            if not isinstance(exc, ConnectionError):
                _log.error("a bug of ours failed a request of %s; please report it", self.source, exc_info=exc)
            status, slug, text = 500, "internal", "the authority has a bug; its log says more"
        body = wire.refusal(slug, text, self._around.now())
        answer = web.Response(status=status, body=body, content_type="application/json")
        answer.force_close()
        return answer

    def _abort(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def connection_of(request: web.BaseRequest) -> HttpConnection:
    """The connection that `request` came by."""
    connection: Any = request.protocol
    if not isinstance(connection, HttpConnection):
        raise TypeError(f"the request came by {connection!r}, which no site of ours made")
    return connection
