"""One HTTP connection: aiohttp's, with the limits that it does not have.

Whoever reaches the port may connect, so that nothing may grow without end or say anything in a traceback. It rides on
any transport of asyncio's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.http import HttpProcessingError

from httpd.connection_table import ConnectionTable

# Clients of ours send a handful; aiohttp takes twice as many.
_MAX_HEADERS: Final = 64

_log = logging.getLogger("qbitel.httpd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may take: seconds and bytes."""

    # Without a request, after an answer and before the first one.
    idle_seconds: float
    # For the head of the first request, from its first byte; who has one must say when it has come: has_begun(). None:
    # idle_seconds are short enough for that, too.
    head_seconds: float | None = None
    # For a TLS handshake, where the site makes them.
    handshake_seconds: float = 10.0
    # That an answer may wait for a client which does not read it.
    write_seconds: float = 10.0
    # To read what a client still sends after it was refused, so that it hears the answer and not a reset.
    linger_seconds: float = 2.0
    # Of one header, with its name: 8 KB, as most servers take.
    header_size: int = 8190
    # Of a body that is read ahead before reading from the connection stops.
    read_ahead: int = 64 * 1024


class Errors(Protocol):
    """What is answered where no handler was asked. The connection ends behind it."""

    def malformed(self, source: str) -> web.Response:
        """To what is no HTTP."""
        ...

    def failed(self) -> web.Response:
        """Where a fault of ours, which is logged already, failed a request behind its handler."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What all connections of a site have in common. `table_of` says where one over such a transport is counted."""

    limits: Limits
    errors: Errors
    table_of: Callable[[asyncio.BaseTransport], ConnectionTable]


class Connection(web.RequestHandler):
    """Counted, closed when it is silent or slow, and never a reason for a traceback in the log."""

    __slots__ = ("_has_begun", "_head_timer", "_made_at", "_table", "_terms", "_write_timer", "on_lost", "source")

    def __init__(self, server: web.Server, terms: Terms) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=terms.limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]  # documented: no access log
            max_field_size=terms.limits.header_size,
            max_headers=_MAX_HEADERS,
            lingering_time=terms.limits.linger_seconds,
            read_bufsize=terms.limits.read_ahead,
            # A few kB that were compressed are as many megabytes; no client of ours compresses.
            auto_decompress=False,
        )
        self._terms = terms
        self._table: ConnectionTable | None = None
        self._made_at = self._loop.time()
        self._head_timer: asyncio.TimerHandle | None = None
        self._has_begun = False
        self._write_timer: asyncio.TimerHandle | None = None
        self.source = "-"
        # Called once when the connection is gone: for who waits on behalf of a request, and would wait on.
        self.on_lost: Callable[[], None] | None = None

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return self._loop.time() - self._made_at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place in the table, perhaps another connection's."""
        peer = transport.get_extra_info("peername")
        self.source = str(peer[0]) if peer else "-"
        self._table = self._terms.table_of(transport)
        self._table.add(self, self.source, self.force_close)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        if self._table is not None:
            self._table.remove(self)
        self.has_begun()
        self._stop_write_timer()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def has_begun(self) -> None:
        """A request has come, with the whole of its head."""
        self._has_begun = True
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def data_received(self, data: bytes) -> None:
        """Something came: a sign of life."""
        if self._table is not None:
            self._table.heard(self)
        head_seconds = self._terms.limits.head_seconds
        if head_seconds is not None and not self._has_begun and self._head_timer is None:
            self._head_timer = self._loop.call_later(head_seconds, self.force_close)
        super().data_received(data)

    def pause_writing(self) -> None:
        """The client does not read what we answer: for so long, and no longer."""
        super().pause_writing()
        self._write_timer = self._loop.call_later(self._terms.limits.write_seconds, self._abort)

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
            answer = self._terms.errors.malformed(self.source)
        else:
            if not isinstance(exc, ConnectionError):
                _log.error("a bug of ours failed a request of %s; please report it", self.source, exc_info=exc)
            answer = self._terms.errors.failed()
        answer.force_close()
        return answer

    def _abort(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def connection_of(request: web.BaseRequest) -> Connection:
    """The connection that `request` came by."""
    connection: Any = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError(f"the request came by {connection!r}, which no site of ours made")
    return connection
