"""pqtls over asyncio: a transport on which any asyncio protocol can ride, and streams on top of it.

Works under asyncio's own loops and under uvloop; see docs/adr/0011-aiotls.md for how, and why so.
"""

from aiotls.client import create_connection, open_connection
from aiotls.errors import (
    HandshakeEvicted,
    HandshakeTimeout,
    PeerFailed,
    ShutdownTimeout,
    StreamTruncated,
    TlsConnectionError,
)
from aiotls.server import TlsServer, create_server, start_server
from aiotls.transport import TlsTransport

__all__ = [
    "HandshakeEvicted",
    "HandshakeTimeout",
    "PeerFailed",
    "ShutdownTimeout",
    "StreamTruncated",
    "TlsConnectionError",
    "TlsServer",
    "TlsTransport",
    "create_connection",
    "create_server",
    "open_connection",
    "start_server",
]
