"""Pairs of connections, alone or against a script, and what came out of them."""

from __future__ import annotations

import pqtls
from pqtls.events import ApplicationData
from tests.support import pki
from tests.support.scripted_peer import ScriptedClient, ScriptedServer

SERVER = pki.credential(pki.leaf("server"))
CLIENT = pki.credential(pki.leaf("client"))


def fresh() -> tuple[pqtls.ClientConnection, pqtls.ServerConnection]:
    """A client and a server that have exchanged nothing yet."""
    return pqtls.ClientConnection(pki.client_config()), pqtls.ServerConnection(pki.server_config())


def scripted_server(*, complete: bool = False) -> ScriptedServer:
    """A script against a ClientConnection; `complete` does the handshake and drains the events."""
    server = ScriptedServer(pqtls.ClientConnection(pki.client_config()))
    if complete:
        server.finish_handshake(SERVER)
        server.connection.events()
    return server


def scripted_client(*, complete: bool = False) -> ScriptedClient:
    """A script against a ServerConnection; `complete` does the handshake and drains the events."""
    client = ScriptedClient(pqtls.ServerConnection(pki.server_config()))
    if complete:
        client.finish_handshake(CLIENT)
        client.connection.events()
    return client


def data_of(connection: pqtls.Connection) -> bytes:
    """All application data among the connection's events, which are drained."""
    return b"".join(event.data for event in connection.events() if isinstance(event, ApplicationData))


def opened(connection: pqtls.Connection, wire: bytes) -> tuple[int, bytes]:
    """What open_into consumes of `wire`, and the data that it makes of it."""
    plaintext = bytearray(len(wire))
    consumed, produced = connection.open_into(memoryview(wire), memoryview(plaintext))
    return consumed, bytes(plaintext[:produced])
