"""What a transport knows beside its bytes."""

from __future__ import annotations

import socket

import pqtls
from aiotls.extra_info import extra_info
from tests.support import pki


def completed() -> pqtls.HandshakeCompleted:
    client = pqtls.ClientConnection(pki.client_config())
    pki.pump(client, pqtls.ServerConnection(pki.server_config()))
    (found,) = [one for one in client.events() if isinstance(one, pqtls.HandshakeCompleted)]
    return found


def test_it_is_what_the_handshake_found_and_what_asyncio_promises() -> None:
    handshake = completed()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with ours, theirs:
            info = extra_info(ours, handshake)
            assert info["peername"] == listener.getsockname()
            assert info["sockname"] == theirs.getpeername()
            assert info["socket"].fileno() == ours.fileno()
    assert info["peer_identity"] == pki.identity("server")
    assert info["peer_certificate"] == pki.leaf("server").der
    assert info["handshake"] is handshake
    assert info["cipher"] == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)


def test_a_peer_that_is_gone_already_has_no_name() -> None:
    with socket.socket() as unconnected:
        assert extra_info(unconnected, completed())["peername"] is None
