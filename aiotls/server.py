"""The server's side: listen, shake hands with each who comes, and give the connection to a protocol."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiotls.client import HANDSHAKE_TIMEOUT, SHUTDOWN_TIMEOUT, STREAM_LIMIT
from aiotls.errors import HandshakeEvicted
from aiotls.handshake import shake_hands
from aiotls.transport import TlsTransport
from pqtls import ServerConfig, ServerConnection

# Handshakes under way at once: each holds some 50 KB and no time, so 50 MB in all. One more, and the oldest is given
# up: whoever opens connections and stays silent then has to be faster than honest handshakes take.
MAX_HANDSHAKES: Final = 1024
BACKLOG: Final = 128
# Accepted in one turn of the loop, so that a burst does not keep established connections waiting.
_ACCEPT_AT_ONCE: Final = 32
# Out of descriptors or memory: wait so many seconds, as asyncio's own servers do.
_ACCEPT_PAUSE: Final = 1.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger("qbitel.aiotls")

Address = Any  # what socket.accept() returns: it depends on the family
OnFailure = Callable[[OSError, Address], None]
StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


def log_failure(error: OSError, address: Address) -> None:
    """The default of `on_handshake_failure`: one line."""
    _log.warning("no TLS connection with %s: %s", address, error)


async def create_server(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | None,
    port: int | None,
    config_source: Callable[[], ServerConfig],
    *,
    sock: socket.socket | None = None,
    backlog: int = BACKLOG,
    reuse_port: bool = False,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    shutdown_timeout: float = SHUTDOWN_TIMEOUT,
    max_handshakes: int = MAX_HANDSHAKES,
    on_handshake_failure: OnFailure = log_failure,
    start_serving: bool = True,
) -> TlsServer:
    """Listen on all addresses of `host`, or on the bound `sock`. Raises OSError.

    `config_source` is asked anew for each connection, so that new credentials need no new server. A protocol is made
    only after its peer has been verified, or found to be anonymous where the configuration serves such clients (their
    "peer_identity" is "", and how many of them may stay is the protocol's to say); whoever fails before goes to
    `on_handshake_failure` (PeerFailed, HandshakeTimeout, HandshakeEvicted or the kernel's OSError, and the address).
    """
    loop = asyncio.get_running_loop()
    sockets = await _bind(loop, host, port, reuse_port) if sock is None else [sock]
    server = TlsServer(
        loop,
        sockets,
        protocol_factory,
        config_source,
        backlog=backlog,
        handshake_timeout=handshake_timeout,
        shutdown_timeout=shutdown_timeout,
        max_handshakes=max_handshakes,
        on_handshake_failure=on_handshake_failure,
    )
    if start_serving:
        await server.start_serving()
    return server


async def start_server(
    client_connected_cb: StreamHandler,
    host: str | None,
    port: int | None,
    config_source: Callable[[], ServerConfig],
    *,
    limit: int = STREAM_LIMIT,
    **options: Any,
) -> TlsServer:
    """create_server (which names the `options`) with a pair of streams for each connection."""
    loop = asyncio.get_running_loop()

    def factory() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return await create_server(factory, host, port, config_source, **options)


class TlsServer(asyncio.AbstractServer):
    """What asyncio.Server is (with the methods of Python 3.13), for TLS connections of ours."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        config_source: Callable[[], ServerConfig],
        *,
        backlog: int,
        handshake_timeout: float,
        shutdown_timeout: float,
        max_handshakes: int,
        on_handshake_failure: OnFailure,
    ) -> None:
        self._loop = loop
        self._sockets = list(sockets)
        self._protocol_factory = protocol_factory
        self._config_source = config_source
        self._backlog = backlog
        self._handshake_timeout = handshake_timeout
        self._shutdown_timeout = shutdown_timeout
        self._max_handshakes = max_handshakes
        self._on_handshake_failure = on_handshake_failure
        self._serving = False
        self._closed = False
        self._handshakes: dict[asyncio.Task[None], Address] = {}  # oldest first
        self._transports: set[TlsTransport] = set()
        self._idle = asyncio.Event()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._forever: asyncio.Future[None] | None = None

    # -- asyncio.AbstractServer ---------------------------------------------------------------------------------

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; none after close()."""
        return tuple(self._sockets)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the server runs on."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._serving

    async def start_serving(self) -> None:
        """Accept connections from now on. Idempotent. Raises OSError, and RuntimeError once closed."""
        if self._closed:
            raise RuntimeError("the server is closed")
        if self._serving:
            return
        for sock in self._sockets:
            sock.setblocking(False)
            sock.listen(self._backlog)
            self._loop.add_reader(sock, self._on_connection, sock)
        self._serving = True

    async def serve_forever(self) -> None:
        """Serve until cancelled; then close, and wait for what was open."""
        if self._forever is not None:
            raise RuntimeError("serve_forever() runs already")
        await self.start_serving()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        finally:
            self._forever = None
            self.close()
            await self.wait_closed()

    def close(self) -> None:
        """Stop listening and give up handshakes under way. Connections stay open."""
        if self._closed:
            return
        self._closed = True
        self._serving = False
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        for task in self._handshakes:
            task.cancel()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()
        self._note_idle()

    async def wait_closed(self) -> None:
        """After close(): wait until every connection has ended."""
        await self._idle.wait()

    def close_clients(self) -> None:
        """close() every connection."""
        for transport in tuple(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        """abort() every connection."""
        for transport in tuple(self._transports):
            transport.abort()

    # -- accepting ----------------------------------------------------------------------------------------------

    def _on_connection(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise  # to the loop's exception handler
                self._pause(listener, error)
                return
            self._start_handshake(sock, address)

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        _log.error("no connections are accepted for %g s: %s", _ACCEPT_PAUSE, error.strerror)
        self._loop.remove_reader(listener)
        self._pauses[listener] = self._loop.call_later(_ACCEPT_PAUSE, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        del self._pauses[listener]
        self._loop.add_reader(listener, self._on_connection, listener)

    def _start_handshake(self, sock: socket.socket, address: Address) -> None:
        task = self._loop.create_task(self._serve(sock, address))
        self._handshakes[task] = address
        # A task that is cancelled before its first step never runs: the socket would stay open.
        task.add_done_callback(lambda done: self._on_handshake_end(done, sock))
        self._evict_oldest()

    def _evict_oldest(self) -> None:
        if len(self._handshakes) <= self._max_handshakes:
            return
        oldest = next(iter(self._handshakes))
        address = self._handshakes.pop(oldest)
        oldest.cancel()
        self._on_handshake_failure(HandshakeEvicted(self._max_handshakes), address)

    async def _serve(self, sock: socket.socket, address: Address) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # What a program writes is a whole message to it: waiting for more (Nagle) only costs a round trip.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = ServerConnection(self._config_source())
        try:
            established = await shake_hands(self._loop, sock, connection, self._handshake_timeout)
        except OSError as error:
            self._on_handshake_failure(error, address)
            sock.close()
            return
        transport = TlsTransport(
            self._loop,
            sock,
            established,
            self._protocol_factory(),
            shutdown_timeout=self._shutdown_timeout,
            on_lost=self._on_lost,
        )
        self._transports.add(transport)

    def _on_handshake_end(self, task: asyncio.Task[None], sock: socket.socket) -> None:
        self._handshakes.pop(task, None)
        if task.cancelled():
            sock.close()
        elif (error := task.exception()) is not None:
            sock.close()
            self._loop.call_exception_handler(
                {"message": "a callback of a TLS server failed", "exception": error, "task": task}
            )
        self._note_idle()

    def _on_lost(self, transport: TlsTransport) -> None:
        self._transports.discard(transport)
        self._note_idle()

    def _note_idle(self) -> None:
        if self._closed and not self._handshakes and not self._transports:
            self._idle.set()


async def _bind(
    loop: asyncio.AbstractEventLoop, host: str | None, port: int | None, reuse_port: bool
) -> list[socket.socket]:
    """A socket bound to each address of `host`; None or "" is every address of this machine."""
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _name, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
