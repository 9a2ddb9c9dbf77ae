"""Handshakes that leave sessions behind, and others that resume them, under a clock that a test moves."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from typing import Any

import pqtls
from pqtls import extensions as ext
from pqtls.extensions import ExtensionType
from pqtls.key_schedule import EarlySecret
from pqtls.messages import ClientHello
from pqtls.provider_cryptography import PROVIDER
from pqtls.tickets import TicketKeeper
from pqtls.transcript import Transcript
from tests.support import pki

# What stands before a handshake message in a record of its own.
RECORD_HEADER = 5


class Clock:
    """The present, as a test sets it."""

    def __init__(self, now: datetime.datetime = pki.NOW) -> None:
        self.now = now

    def __call__(self) -> datetime.datetime:
        """The present."""
        return self.now

    def advance(self, **step: float) -> None:
        """Move on by a timedelta's arguments."""
        self.now += datetime.timedelta(**step)


@dataclass(frozen=True)
class Met:
    """Both ends after their handshake."""

    client: pqtls.ClientConnection
    server: pqtls.ServerConnection
    at_client: pqtls.HandshakeCompleted
    at_server: pqtls.HandshakeCompleted
    sessions: tuple[pqtls.Session, ...]

    @property
    def resumed(self) -> bool:
        """Whether the handshake was a resumed one; both ends must be of one opinion."""
        assert self.at_client.resumed is self.at_server.resumed
        return self.at_client.resumed


def meet(client: pqtls.ClientConfig, server: pqtls.ServerConfig) -> Met:
    """Do the whole handshake; raises what either end raises."""
    ours, theirs = pqtls.ClientConnection(client), pqtls.ServerConnection(server)
    pki.pump(ours, theirs)
    at_client, *others = ours.events()
    (at_server,) = theirs.events()
    assert isinstance(at_client, pqtls.HandshakeCompleted)
    assert isinstance(at_server, pqtls.HandshakeCompleted)
    sessions = tuple(event.session for event in others if isinstance(event, pqtls.SessionReceived))
    assert len(sessions) == len(others)
    return Met(ours, theirs, at_client, at_server, sessions)


@dataclass
class Mesh:
    """A server with tickets and clients of it, that share a clock. `keeping` are arguments of its TicketKeeper."""

    keeping: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.tickets = TicketKeeper(PROVIDER, **self.keeping)

    def client(self, *sessions: pqtls.Session, **changes: Any) -> pqtls.ClientConfig:
        """A client that offers these sessions."""
        return pki.client_config(now=self.clock, sessions=sessions, **changes)

    def server(self, **changes: Any) -> pqtls.ServerConfig:
        """The server."""
        return pki.server_config(**({"now": self.clock, "tickets": self.tickets} | changes))

    def session(self, **changes: Any) -> pqtls.Session:
        """A session of a full handshake; `changes` are of both configurations."""
        return meet(self.client(**changes), self.server(**changes)).sessions[0]


def with_psk(
    hello: ClientHello,
    session: pqtls.Session,
    *,
    modes: bytes | None = bytes((1, ext.PSK_DHE_KE)),
    binder: bytes | None = None,
) -> ClientHello:
    """A ClientHello that offers the session, its binder right unless another one is given."""
    extensions = dict(hello.extensions)
    if modes is not None:
        extensions[ExtensionType.PSK_KEY_EXCHANGE_MODES] = modes
    suite = session.facts.suite
    blank = bytes(suite.hash_length)
    extensions[ExtensionType.PRE_SHARED_KEY] = ext.write_offered_psk(session.ticket, 0, blank)
    truncated = replace(hello, extensions=extensions).encode()[: -len(ext.write_binder_list(blank))]
    right = EarlySecret.with_psk(suite, PROVIDER, session.psk).binder(Transcript(suite.hash_name, truncated).digest())
    psk = ext.write_offered_psk(session.ticket, 0, right if binder is None else binder)
    return replace(hello, extensions=extensions | {ExtensionType.PRE_SHARED_KEY: psk})
