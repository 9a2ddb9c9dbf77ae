"""The client's side: connect, shake hands, and give the connection to a protocol or a pair of streams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, TypeVar

from aiotls.handshake import Established, shake_hands
from aiotls.transport import TlsTransport, ignore_session
from pqtls import ClientConfig, ClientConnection, Session

# Seconds. A handshake takes milliseconds; ten seconds survive three retransmissions of a lost segment (RFC 6298: 1, 2
# and 4 s) and are what the sidecar allows too.
HANDSHAKE_TIMEOUT: Final = 10.0
# Seconds without progress after close(): two retransmissions of a lost segment, and a peer that is slow to answer.
SHUTDOWN_TIMEOUT: Final = 5.0
STREAM_LIMIT: Final = 64 * 1024  # bytes that a StreamReader holds before it pauses reading at twice that, as asyncio's

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def create_connection(
    protocol_factory: Callable[[], P],
    host: str | None,
    port: int | None,
    config: ClientConfig,
    *,
    sock: socket.socket | None = None,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    shutdown_timeout: float = SHUTDOWN_TIMEOUT,
    on_session: Callable[[Session], None] = ignore_session,
) -> tuple[TlsTransport, P]:
    """Connect to `host` and `port`, or take the connected `sock` over, complete the handshake; then connection_made.

    Times in seconds; the connecting itself has the kernel's time. `on_session` gets the server's tickets, each good for
    one later connection. Raises PeerFailed where the server is at fault or refuses us, HandshakeTimeout, and OSError;
    the socket is closed then. In TLS 1.3 the server judges our certificate, or our having none, after our handshake is
    complete: its refusal comes as PeerFailed to connection_lost.
    """
    loop = asyncio.get_running_loop()
    connected = await _connect(loop, host, port) if sock is None else sock
    try:
        established = await _establish(loop, connected, config, handshake_timeout)
        protocol = protocol_factory()
        transport = TlsTransport(
            loop, connected, established, protocol, shutdown_timeout=shutdown_timeout, on_session=on_session
        )
    except BaseException:
        connected.close()
        raise
    return transport, protocol


async def open_connection(
    host: str | None,
    port: int | None,
    config: ClientConfig,
    *,
    limit: int = STREAM_LIMIT,
    sock: socket.socket | None = None,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    shutdown_timeout: float = SHUTDOWN_TIMEOUT,
    on_session: Callable[[Session], None] = ignore_session,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """create_connection with streams; `limit` in bytes as asyncio.open_connection has it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    transport, protocol = await create_connection(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
        host,
        port,
        config,
        sock=sock,
        handshake_timeout=handshake_timeout,
        shutdown_timeout=shutdown_timeout,
        on_session=on_session,
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _establish(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, config: ClientConfig, timeout: float
) -> Established:
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # What a program writes is a whole message to it: waiting for more (Nagle) only costs a round trip.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return await shake_hands(loop, sock, ClientConnection(config), timeout)


async def _connect(loop: asyncio.AbstractEventLoop, host: str | None, port: int | None) -> socket.socket:
    """A socket connected to the first address of `host` that answers; raises the last one's OSError."""
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _name, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure
