"""Bytes to and from the application, in cleartext or by classical TLS, over a socket of our own.

TLS works in memory, so that no transport of the loop is between: those of uvloop are not for
connections that one side closes before the other.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

_READ_SIZE: Final = 4096  # bytes; heads of answers are smaller as a rule

T = TypeVar("T")


class Channel(Protocol):
    """A connection that stands. Both raise OSError."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""

    async def receive(self) -> bytes:
        """What has come; b"" at the end."""


class PlainChannel:
    """The socket itself."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def receive(self) -> bytes:
        return await self._loop.sock_recv(self._sock, _READ_SIZE)


class TlsChannel:
    """Classical TLS over the socket, as the kubelet speaks it: to whoever is there, by whatever certificate."""

    def __init__(self, sock: socket.socket) -> None:
        self._below = PlainChannel(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _unverified().wrap_bio(self._incoming, self._outgoing)

    async def send(self, data: bytes) -> None:
        await self._do(lambda: self._tls.write(data))

    async def receive(self) -> bytes:
        try:
            return await self._do(lambda: self._tls.read(_READ_SIZE))
        except ssl.SSLEOFError:
            return b""  # without a close_notify, as many servers end; the kubelet takes that, too

    async def _do(self, step: Callable[[], T]) -> T:
        """Do a step of TLS; what it has to send and to read first is sent and read."""
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await self._below.receive():
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._flush()
                return done

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._below.send(self._outgoing.read())


@functools.cache
def _unverified() -> ssl.SSLContext:
    """The certificate is nobody's business. Nor, then, is how strong its key is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
