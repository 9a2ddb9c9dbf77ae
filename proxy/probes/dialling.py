"""Dialling the application at an address of the pod, past the rules of interception.

What the sidecar's user sends over lo to such an address comes in by the front door (docs/interception.md), where a
question in plaintext is refused. From the address that the inbound side dials from it goes straight to the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator

from mesh import names


def unconnected(family: int) -> socket.socket:
    """A non-blocking TCP socket from the address that the rules let through. Raises OSError."""
    source = names.INBOUND_SOURCE_V6 if family == socket.AF_INET6 else names.INBOUND_SOURCE_V4
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind((source, 0))
    except OSError as error:
        # A pod without this address has no rules either, and nothing there to be let through.
        if error.errno != errno.EADDRNOTAVAIL:
            sock.close()
            raise
    return sock


@contextlib.asynccontextmanager
async def dialled(host: str, port: int) -> AsyncIterator[socket.socket]:
    """A connection to `host`, an address of this pod, which is closed in order. Raises OSError."""
    with unconnected(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        yield sock
