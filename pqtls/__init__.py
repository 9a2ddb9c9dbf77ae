"""TLS 1.3 (RFC 8446) as a value: bytes in, bytes and events out. No sockets, no clock, no event loop.

Mutual authentication with ML-DSA-87 certificates and key exchange with X25519 + ML-KEM-1024; see ARCHITECTURE.md for
how the parts fit, and `ClientConnection` and `ServerConnection` for how it is used.
"""

from pqtls.certificates import Credential
from pqtls.chain_cache import ChainCache
from pqtls.client import ClientConnection
from pqtls.config import ClientAuthentication, ClientConfig, ServerConfig
from pqtls.connection import Connection
from pqtls.errors import (
    Alert,
    AlertReceived,
    CertificateRefused,
    ConfigurationError,
    DecodeError,
    IdentityRefused,
    MisuseError,
    NegotiationRefused,
    NotTls,
    PeerError,
    ProtocolViolation,
    TlsError,
    TruncatedStream,
)
from pqtls.events import ApplicationData, Event, HandshakeCompleted, PeerClosed, PeerKeysUpdated, SessionReceived
from pqtls.profiles import PROFILES, Profile
from pqtls.record import sealed_size
from pqtls.server import ServerConnection
from pqtls.sessions import Session
from pqtls.tickets import TicketKeeper
from pqtls.trust import TrustAnchors

__all__ = [
    "PROFILES",
    "Alert",
    "AlertReceived",
    "ApplicationData",
    "CertificateRefused",
    "ChainCache",
    "ClientAuthentication",
    "ClientConfig",
    "ClientConnection",
    "ConfigurationError",
    "Connection",
    "Credential",
    "DecodeError",
    "Event",
    "HandshakeCompleted",
    "IdentityRefused",
    "MisuseError",
    "NegotiationRefused",
    "NotTls",
    "PeerClosed",
    "PeerError",
    "PeerKeysUpdated",
    "Profile",
    "ProtocolViolation",
    "ServerConfig",
    "ServerConnection",
    "Session",
    "SessionReceived",
    "TicketKeeper",
    "TlsError",
    "TruncatedStream",
    "TrustAnchors",
    "sealed_size",
]
