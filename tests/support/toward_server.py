"""Steps of a right client against a ServerConnection, up to each state of the server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pqtls
from pqtls import extensions as ext
from pqtls.extensions import KeyShareEntry
from pqtls.groups import X25519MLKEM768, X25519MLKEM1024, generate
from pqtls.messages import ClientHello
from pqtls.provider_cryptography import PROVIDER
from pqtls.wire import uint16_list
from tests.support import pki
from tests.support.scripted_peer import ScriptedClient, forged_chain, replaced

CLIENT = pki.credential(pki.leaf("client"))


def before_client_hello(**changes: Any) -> ScriptedClient:
    """Before ClientHello; `changes` are of the server's configuration."""
    return ScriptedClient(pqtls.ServerConnection(pki.server_config(**changes)))


def before_certificate(**changes: Any) -> ScriptedClient:
    """Before Certificate; `changes` are of the server's configuration."""
    client = before_client_hello(**changes)
    client.start()
    return client


def before_verify(**changes: Any) -> ScriptedClient:
    """Before CertificateVerify; `changes` are of the server's configuration."""
    client = before_certificate(**changes)
    client.send(forged_chain(*CLIENT.chain))
    return client


def before_finished(**changes: Any) -> ScriptedClient:
    """Before Finished; `changes` are of the server's configuration."""
    client = before_verify(**changes)
    client.send(client.certificate_verify(CLIENT))
    return client


def before_second_hello() -> ScriptedClient:
    """The client has a share of X25519MLKEM768 and offers X25519MLKEM1024, which is all that the server takes."""
    client = before_client_hello()
    client.share = generate(X25519MLKEM768, PROVIDER)
    hello = client.client_hello()
    extensions = replaced(hello.extensions, supported_groups=uint16_list((0x11EC, 0xFEC4)))
    client.send(replace(hello, extensions=extensions).encode())
    client.receive()
    client.share = generate(X25519MLKEM1024, PROVIDER)
    return client


def second_hello(client: ScriptedClient, **extensions: bytes | None) -> ClientHello:
    """The right second ClientHello; extensions can be changed."""
    hello = client.client_hello()
    return replace(
        hello,
        extensions=replaced(hello.extensions, **({"supported_groups": uint16_list((0x11EC, 0xFEC4))} | extensions)),
    )


def key_shares(*entries: tuple[int, bytes]) -> bytes:
    """The content of a ClientHello's key_share: code points and what stands for their shares."""
    return ext.write_client_key_shares(tuple(KeyShareEntry(group, share) for group, share in entries))
