"""What a connection tells its owner. Each is a value; the owner drains them with `Connection.events()`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from pqtls.sessions import Session


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """Both sides are authenticated as far as was asked for, and application data may flow."""

    profile: str
    group: str  # for example "X25519MLKEM1024"
    # What the peer signed with, for example "mldsa87"; when resumed, what it had signed with; "" if it is anonymous.
    signature_scheme: str
    cipher_suite: str
    # The one URI of the peer's verified certificate, its SPIFFE ID; "" for a client that showed none, which only a
    # server with ClientAuthentication.OPTIONAL has.
    peer_identity: str
    peer_chain: tuple[bytes, ...] = field(repr=False)  # DER, leaf first, as the peer sent it
    alpn: bytes | None
    server_name: str | None
    resumed: bool  # whether a ticket stood for the certificates; peer_chain is empty then
    client_authenticated: bool  # False where the client showed no certificate: it has none, or was not asked for it
    # x509_reading.path_id of the certificates on the peer's path, root excluded, when resumed too: for comparing with
    # the TrustAnchors.revoked of a list that comes while the connection lives.
    peer_path_ids: tuple[bytes, ...] = field(default=(), repr=False)
    # When the first certificate of the peer's path expires, UTC, when resumed too; None where it showed none.
    peer_valid_until: datetime.datetime | None = field(default=None, repr=False)

    @property
    def peer_certificate(self) -> bytes:
        """The DER of the peer's verified leaf; b"" where none was shown, or a ticket stood for it."""
        return self.peer_chain[0] if self.peer_chain else b""


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
