"""Steps of a right server against a ClientConnection, up to each state of the client."""

from __future__ import annotations

from typing import Any

import pqtls
from pqtls.messages import EncryptedExtensions
from tests.support import pki
from tests.support.scripted_peer import ScriptedServer, certificate_request, forged_chain

SERVER = pki.credential(pki.leaf("server"))


def before_server_hello(**changes: Any) -> ScriptedServer:
    """Before ServerHello; `changes` are of the client's configuration."""
    return ScriptedServer(pqtls.ClientConnection(pki.client_config(**changes)))


def before_encrypted_extensions(**changes: Any) -> ScriptedServer:
    """Before EncryptedExtensions; `changes` are of the client's configuration."""
    server = before_server_hello(**changes)
    server.send_server_hello()
    return server


def before_request(**changes: Any) -> ScriptedServer:
    """Before CertificateRequest; `changes` are of the client's configuration."""
    server = before_encrypted_extensions(**changes)
    server.send(EncryptedExtensions({}).encode())
    return server


def before_certificate(**changes: Any) -> ScriptedServer:
    """Before Certificate, which was asked for; `changes` are of the client's configuration."""
    server = before_request(**changes)
    server.send(certificate_request())
    return server


def before_verify(**changes: Any) -> ScriptedServer:
    """Before CertificateVerify; `changes` are of the client's configuration."""
    server = before_certificate(**changes)
    server.send(forged_chain(*SERVER.chain))
    return server


def before_finished(**changes: Any) -> ScriptedServer:
    """Before Finished; `changes` are of the client's configuration."""
    server = before_verify(**changes)
    server.send(server.certificate_verify(SERVER))
    return server
