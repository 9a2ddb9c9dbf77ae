"""The vocabulary of failure: whose fault it was, which alert it sends, what a person should know.

Two trees that never meet, as h11 keeps them: `PeerError` is what the other end (or the wire) did, and is an
everyday event for a server; `MisuseError` is what our own code did wrong, and is a bug; `ConfigurationError` is what
an operator gave us, and is reported before any connection is made.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Alert(IntEnum):
    """AlertDescription of RFC 8446 §6."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


class TlsError(Exception):
    """Root of everything that pqtls raises on purpose."""


class PeerError(TlsError):
    """The peer, or somebody on the wire, ended this connection.

    `reason` is one of a closed set of slugs, fit for a metric's label; `str()` is a sentence for a person. `alert` is
    what we send (or, for AlertReceived, what came); None where no alert can be sent any more.
    """

    default_reason: ClassVar[str] = "peer_error"

    def __init__(self, message: str, alert: Alert | None, reason: str | None = None) -> None:
        super().__init__(message)
        self.alert = alert
        self.reason = reason or self.default_reason


class ProtocolViolation(PeerError):
    """The peer broke RFC 8446. Each raise names the section's alert."""

    default_reason = "protocol_violation"

    def __init__(self, message: str, alert: Alert) -> None:
        super().__init__(message, alert)


class DecodeError(ProtocolViolation):
    """A message cannot be parsed: a length is wrong, bytes are missing or left over (RFC 8446 §6.2)."""

    default_reason = "decode_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, Alert.DECODE_ERROR)


class NotTls(ProtocolViolation):
    """The first bytes are no TLS record at all, for example an HTTP request."""

    default_reason = "not_tls"

    def __init__(self, message: str) -> None:
        super().__init__(message, Alert.DECODE_ERROR)


class NegotiationRefused(PeerError):
    """The peer speaks TLS 1.3 correctly but offers nothing that our profile lists."""

    default_reason = "nothing_in_common"

    def __init__(self, message: str, alert: Alert = Alert.HANDSHAKE_FAILURE) -> None:
        super().__init__(message, alert)


class CertificateRefused(PeerError):
    """The peer's certificate, or the identity in it, is not acceptable. `reason` says in which way."""

    default_reason = "bad_certificate"


class AlertReceived(PeerError):
    """The peer refused us: `alert` is the one that it sent."""

    default_reason = "alert_received"


class TruncatedStream(PeerError):
    """The peer's TCP stream ended without close_notify: an attacker may have cut it (RFC 8446 §6.1)."""

    default_reason = "truncated"

    def __init__(self, message: str) -> None:
        super().__init__(message, None)


class IdentityRefused(Exception):
    """Raised by a caller's `accept_identity` to refuse a verified peer. `reason` becomes the error's slug."""

    def __init__(self, message: str, *, reason: str = "identity_refused", alert: Alert = Alert.ACCESS_DENIED) -> None:
        super().__init__(message)
        self.reason = reason
        self.alert = alert


class ConfigurationError(TlsError, ValueError):
    """What an operator gave cannot work: the message is one line that says what is wrong and what to do."""


class MisuseError(TlsError, RuntimeError):
    """Our own code called pqtls in a way that it must not. Always a bug."""
