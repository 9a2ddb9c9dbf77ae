"""What a transport knows beside its bytes: get_extra_info() of asyncio.

    peername, sockname, socket   as every transport of asyncio has them
    peer_identity                str: the peer's verified SPIFFE ID; "" for a client that showed no certificate to a
                                 server with ClientAuthentication.OPTIONAL
    peer_certificate             bytes: the DER of the peer's verified leaf; b"" where none was shown, or a ticket stood
                                 for it
    handshake                    pqtls.HandshakeCompleted
    cipher                       (name, "TLSv1.3", bits), as ssl.SSLSocket.cipher() has it

All of it is as it was at the handshake: a certificate may have expired or been revoked since. There is no "sslcontext"
and no "ssl_object": what asks for those means OpenSSL.
"""

from __future__ import annotations

import socket
from asyncio import trsock
from typing import Any, Final

from pqtls import HandshakeCompleted
from pqtls.suites import CIPHER_SUITES

_CIPHER_BITS: Final = {suite.name: suite.key_length * 8 for suite in CIPHER_SUITES.values()}


def extra_info(sock: socket.socket, completed: HandshakeCompleted) -> dict[str, Any]:
    """All of it, for a connected socket whose handshake is `completed`."""
    suite = completed.cipher_suite
    return {
        "socket": trsock.TransportSocket(sock),
        "sockname": sock.getsockname(),
        "peername": _peer_name(sock),
        "peer_identity": completed.peer_identity,
        "peer_certificate": completed.peer_certificate,
        "handshake": completed,
        "cipher": (suite, "TLSv1.3", _CIPHER_BITS[suite]),
    }


def _peer_name(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError:  # reset since the handshake; the first read will say so
        return None
