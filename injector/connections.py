"""The webhook's connections: aiohttp's, with the limits that it does not have, and with errors in Kubernetes' form.

Whoever reaches the port may connect, so that nothing may grow without end or say anything in a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Hashable
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from injector import review
from injector.review import Answer

JSON: Final = "application/json"
BACKLOG: Final = 1024
# Open at once; when there are more, the one that was silent for the longest goes. An API server under load opens one
# for each pod that is being created. Each takes some 120 kB.
MAX_CONNECTIONS: Final = 1280
# Seconds for a TLS handshake, and for the head of the first request from its first byte; the API server gives up after
# five in all.
HANDSHAKE_SECONDS: Final = 10.0
HEAD_SECONDS: Final = 10.0
# Seconds without a request: Go's transport keeps connections that it never used, too. More than the 90 after which API
# servers give an idle connection up themselves (client-go), so that no request is ever on its way to a connection that
# we are just closing.
IDLE_SECONDS: Final = 150.0
# Seconds that an answer may wait for a client which does not read it.
WRITE_SECONDS: Final = 10.0
# Seconds to read what a client still sends after it was refused, so that it hears the answer and not a reset.
LINGER_SECONDS: Final = 2.0
# Of a body that is read ahead before reading from the connection stops.
_READ_AHEAD: Final = 64 * 1024
_MAX_HEADERS: Final = 64

_log = logging.getLogger("qbitel.injector")


class Connections:
    """The open connections, the one first that was silent for the longest: it goes when there are too many."""

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._closers: dict[Hashable, Callable[[], None]] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._closers)

    def add(self, connection: Hashable, close: Callable[[], None]) -> None:
        """`connection` is open; `close` will be called where it has to go."""
        if len(self._closers) >= self._most:
            silent = next(iter(self._closers))
            self.evicted += 1
            self._closers.pop(silent)()
        self._closers[connection] = close

    def heard(self, connection: Hashable) -> None:
        """Something came from `connection` just now."""
        close = self._closers.pop(connection, None)
        if close is not None:
            self._closers[connection] = close

    def remove(self, connection: Hashable) -> None:
        """`connection` is no more. Idempotent."""
        self._closers.pop(connection, None)


class Connection(web.RequestHandler):
    """Counted, closed when it is silent or slow, and never a reason for a traceback in the log."""

    __slots__ = ("_has_begun", "_head_timer", "_on_malformed", "_table", "_write_timer")

    def __init__(self, server: web.Server, table: Connections, on_malformed: Callable[[Answer], None]) -> None:
        """`on_malformed` is told of what is no HTTP."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # documented: no access log
            max_headers=_MAX_HEADERS,
            lingering_time=LINGER_SECONDS,
            read_bufsize=_READ_AHEAD,
            # A few kB that were compressed are as many megabytes; API servers do not compress.
            auto_decompress=False,
        )
        self._table = table
        self._on_malformed = on_malformed
        self._head_timer: asyncio.TimerHandle | None = None
        self._has_begun = False
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place in the table, perhaps another connection's."""
        self._table.add(self, self.force_close)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self._table.remove(self)
        self.has_begun()
        self._stop_write_timer()
        super().connection_lost(exc)

    def has_begun(self) -> None:
        """A request has come, with the whole of its head."""
        self._has_begun = True
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def data_received(self, data: bytes) -> None:
        """Something came: a sign of life."""
        self._table.heard(self)
        if not self._has_begun and self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_SECONDS, self.force_close)
        super().data_received(data)

    def pause_writing(self) -> None:
        """The client does not read what we answer: for so long, and no longer."""
        super().pause_writing()
        self._write_timer = self._loop.call_later(WRITE_SECONDS, self._abort)

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
            answer = review.refused_request(400, "this is no HTTP/1.1 request that can be read")
        else:
            _log.error("a bug of ours failed a request; please report it", exc_info=exc)
            answer = review.refused_request(500, "the injector failed; its log says where")
        self._on_malformed(answer)
        response = web.Response(status=answer.status, body=answer.body, content_type=JSON)
        response.force_close()
        return response

    def _abort(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class Site(web.BaseSite):
    """Connections of `sock`, which listens already, as HTTP of `runner`: over TLS where there is a `context`."""

    __slots__ = ("_context", "_on_malformed", "_sock", "_table")

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        table: Connections,
        on_malformed: Callable[[Answer], None],
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner)
        self._sock = sock
        self._table = table
        self._on_malformed = on_malformed
        self._context = context

    @property
    def name(self) -> str:
        """Where the socket is open."""
        return str(self._sock.getsockname())

    async def start(self) -> None:
        """Accept connections until stop(), which closes the socket."""
        await super().start()
        within: dict[str, Any] = {}
        if self._context is not None:
            within = {"ssl": self._context, "ssl_handshake_timeout": HANDSHAKE_SECONDS}
        self._server = await asyncio.get_running_loop().create_server(
            self._connection, sock=self._sock, backlog=BACKLOG, **within
        )

    def _connection(self) -> Connection:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner was not set up, or is cleaned up already")
        return Connection(server, self._table, self._on_malformed)


def connection_of(request: web.BaseRequest) -> Connection:
    """The connection that `request` came by."""
    connection: Any = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError(f"the request came by {connection!r}, which no site of ours made")
    return connection
