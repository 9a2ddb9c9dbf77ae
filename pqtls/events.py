"""What a connection tells its owner. Each is a value; the owner drains them with `Connection.events()`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pqtls.sessions import Session


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """Both sides are authenticated as far as was asked for, and application data may flow."""

    profile: str
    group: str  # for example "X25519MLKEM1024"
    signature_scheme: str  # what the peer signed with, for example "mldsa87"; when resumed, what it had signed with
    cipher_suite: str
    peer_identity: str  # the one URI of the peer's certificate: its SPIFFE ID
    peer_chain: tuple[bytes, ...] = field(repr=False)  # DER, leaf first, as the peer sent it
    alpn: bytes | None
    server_name: str | None
    resumed: bool  # whether a ticket stood for the certificates; peer_chain is empty then
    client_authenticated: bool  # False only on a client whose server did not ask for its certificate


@dataclass(frozen=True, slots=True)
class SessionReceived:
    """A server's ticket came: the next connection to the same server may resume with it, once."""

    session: Session


@dataclass(frozen=True, slots=True)
class ApplicationData:
    """Plaintext from the peer, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer sent close_notify: it will send no more, but still reads (RFC 8446 §6.1)."""


@dataclass(frozen=True, slots=True)
class PeerKeysUpdated:
    """The peer changed its sending keys (RFC 8446 §4.6.3). For counting; nothing needs doing."""


Event = HandshakeCompleted | ApplicationData | PeerClosed | PeerKeysUpdated | SessionReceived
