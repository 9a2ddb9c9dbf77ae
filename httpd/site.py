"""Where an aiohttp server's connections come from: a socket that listens, in the clear or over TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final

from aiohttp import web

from httpd.connection import Connection, Terms

# Connections that the kernel keeps while we are at others.
BACKLOG: Final = 1024


class Site(web.BaseSite):
    """Connections of `sock`, which listens already, as HTTP of `runner`: over TLS where there is a `context`.

    A subclass with another kind of server in between overrides listen().
    """

    __slots__ = ("_context", "_sock", "_terms")

    def __init__(
        self, runner: web.BaseRunner, sock: socket.socket, terms: Terms, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(runner)
        self._sock = sock
        self._terms = terms
        self._context = context

    @property
    def name(self) -> str:
        """HOST:PORT, where the socket is open."""
        return address_of(self._sock)

    async def start(self) -> None:
        """Accept connections until stop(), which closes the socket."""
        await super().start()
        self._server = await self.listen()

    async def listen(self) -> asyncio.AbstractServer:
        """A server that makes a protocol for each of the socket's connections."""
        within: dict[str, Any] = {}
        if self._context is not None:
            within = {"ssl": self._context, "ssl_handshake_timeout": self._terms.limits.handshake_seconds}
        loop = asyncio.get_running_loop()
        return await loop.create_server(self.make_protocol, sock=self._sock, backlog=BACKLOG, **within)

    def make_protocol(self) -> Connection:
        """For one more connection."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner was not set up, or is cleaned up already")
        return Connection(server, self._terms)


def address_of(sock: socket.socket) -> str:
    """HOST:PORT, with the port that the kernel chose where 0 was asked for; an IPv6 address in brackets."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
