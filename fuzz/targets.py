"""What is fuzzed: a function of bytes each, which may only end in the errors that it promises.

Anything else that a target raises is a finding. Each target has its seeds in fuzz/corpus/<name>/.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
from collections.abc import Callable
from typing import Final

import pqtls
from init.config import parse_networks, parse_ports
from init.state import parse_save
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, SpiffeId
from pqtls import extensions, messages
from pqtls.certificates import Purpose, validate_chain
from pqtls.provider import default_provider
from pqtls.sessions import SessionFacts
from pqtls.signatures import MLDSA87
from pqtls.wire import Reader
from proxy.sniff import sniff
from tests.support.pki import NOW, client_config, leaf, root, server_config, trust

Target = Callable[[bytes], None]


def _parser(parse: Callable[[bytes], object]) -> Target:
    """A parser of pqtls: a ProtocolViolation (DecodeError is one) is all that it may raise."""

    def run(data: bytes) -> None:
        with contextlib.suppress(pqtls.ProtocolViolation):
            parse(data)

    return run


def server(data: bytes) -> None:
    """The bytes of a client, from the first one on."""
    with contextlib.suppress(pqtls.PeerError):
        pqtls.ServerConnection(_server_config()).receive_data(data)


def client(data: bytes) -> None:
    """The bytes of a server, from the first one on."""
    with contextlib.suppress(pqtls.PeerError):
        pqtls.ClientConnection(_client_config()).receive_data(data)


def chain(data: bytes) -> None:
    """The DER of a peer's leaf."""
    with contextlib.suppress(pqtls.CertificateRefused):
        validate_chain((data,), _trust(), Purpose.SERVER, NOW, (MLDSA87,))


def ticket(data: bytes) -> None:
    """What a client may put into pre_shared_key as a ticket."""
    _keeper().open(data, NOW + datetime.timedelta(seconds=1))


def sniffed(data: bytes) -> None:
    """The first bytes that reach a captured port. Nothing at all may be raised."""
    sniff(data, frozenset({b"qbitel-tcp/1", b"qbitel-mux/1"}))


def spiffe(data: bytes) -> None:
    """The URI of a certificate."""
    with contextlib.suppress(InvalidSpiffeId):
        identity = SpiffeId.parse(data.decode("utf-8", "replace"))
        if SpiffeId.parse(str(identity)) != identity:
            raise AssertionError("a SPIFFE ID does not survive the round trip")


def interception(data: bytes) -> None:
    """Flags of `qbitel init`, and what iptables-save prints."""
    text = data.decode("utf-8", "replace")
    for parse in (parse_ports, parse_networks):
        with contextlib.suppress(UserError):
            parse("--flag", text)
    with contextlib.suppress(UserError):
        parse_save(text)


@functools.cache
def _server_config() -> pqtls.ServerConfig:
    return server_config(tickets=_keeper())


@functools.cache
def _client_config() -> pqtls.ClientConfig:
    return client_config()


@functools.cache
def _trust() -> pqtls.TrustAnchors:
    return trust(root())


@functools.cache
def _keeper() -> pqtls.TicketKeeper:
    leaf("server")
    return pqtls.TicketKeeper(default_provider())


TARGETS: Final[dict[str, Target]] = {
    "server": server,
    "client": client,
    "chain": chain,
    "ticket": ticket,
    "sniff": sniffed,
    "spiffe": spiffe,
    "interception": interception,
    "client_hello": _parser(messages.ClientHello.parse),
    "server_hello": _parser(messages.ServerHello.parse),
    "encrypted_extensions": _parser(messages.EncryptedExtensions.parse),
    "certificate_request": _parser(messages.CertificateRequest.parse),
    "certificate": _parser(messages.Certificate.parse),
    "certificate_verify": _parser(messages.CertificateVerify.parse),
    "new_session_ticket": _parser(messages.NewSessionTicket.parse),
    "key_shares": _parser(extensions.read_client_key_shares),
    "offered_psks": _parser(extensions.read_offered_psks),
    "server_name": _parser(extensions.read_server_name),
    "session_facts": _parser(lambda data: SessionFacts.read(Reader(data, "ticket"))),
}
