"""Why a connection ended badly: a flag of a closed set, a slug for metrics, a sentence for a person. Pure.

The sentence says what happened, whose fault it was as far as we can know, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from pqtls.errors import Alert, AlertReceived, PeerError, TruncatedStream
from proxy.handshake import HandshakeFailed
from proxy.original_destination import NoOriginalDestination
from proxy.relay import End, Outcome
from proxy.sockets import ConnectFailed
from proxy.tunnels.ends import StreamReset
from proxy.tunnels.frames import ResetCode, TunnelViolation


class Flag(Enum):
    """Response flags: a closed set, the same in metrics and access log."""

    NONE = "-"
    DENY = "DENY"
    CONNECT = "CONNECT"
    TLS_FAILURE = "TLS_FAILURE"
    IDENTITY_ERROR = "IDENTITY_ERROR"
    CERT_REVOKED = "CERT_REVOKED"
    RATE_LIMITED = "RATE_LIMITED"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    DRAIN = "DRAIN"
    TIMEOUT = "TIMEOUT"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a connection ended. `refused`: we, or the peer, did not want it; then it is counted and warned of."""

    flag: Flag
    reason: str
    message: str
    refused: bool = False


class Refused(Exception):
    """A phase refuses the connection."""

    def __init__(self, flag: Flag, reason: str, message: str) -> None:
        super().__init__(message)
        self.verdict = Verdict(flag, reason, message, refused=True)


CLOSED: Final = Verdict(Flag.NONE, "-", "")
CLOSED_EARLY: Final = Verdict(Flag.NONE, "closed_early", "the client closed the connection before it sent anything")
DRAINED: Final = Verdict(Flag.DRAIN, "drained", "the sidecar ended before the connection did, and reset it")
TOO_MANY: Final = Verdict(
    Flag.RATE_LIMITED,
    "connection_limit",
    "as many connections as --max-connections allows are open already. Raise it, or find out who holds them.",
    refused=True,
)
TOO_MANY_OF_ONE: Final = Verdict(
    Flag.RATE_LIMITED,
    "peer_connection_limit",
    "this peer alone has three quarters of what --max-connections allows. Raise it, or find out what the peer does.",
    refused=True,
)
TOO_OLD: Final = Verdict(
    Flag.IDENTITY_ERROR,
    "tunnel_expired",
    "the peer's tunnel is older than --tunnel-max-age, or its certificate has expired: it was told to make another.",
    refused=True,
)

REVOKED: Final = Verdict(
    Flag.CERT_REVOKED,
    "revoked",
    "the certificate of the peer, or of its issuer, was revoked while the connection was open; it was reset. "
    "Issue the peer a new certificate, if it should be let in.",
)

PEER_SILENT: Final = Verdict(
    Flag.TIMEOUT,
    "peer_silent",
    "the other sidecar has not answered for twice --tunnel-silence: it, or the network between, is gone",
)
STALLED: Final = Verdict(
    Flag.TIMEOUT,
    "stalled",
    "one end has not read what waits for it for as long as --stall-timeout allows, and the other said nothing either",
)
# How the other sidecar refuses a stream: what we make of it.
_BY_PEER: Final[dict[ResetCode, tuple[Flag, str, str]]] = {
    ResetCode.CONNECT_FAILED: (Flag.CONNECT, "connect_failed", "the application there cannot be connected to"),
    ResetCode.CONNECT_TIMEOUT: (Flag.TIMEOUT, "connect_timeout", "the application there does not answer"),
    ResetCode.DENIED: (Flag.DENY, "denied_by_peer", "a policy there does not let us in"),
    ResetCode.CONNECTION_LIMIT: (Flag.RATE_LIMITED, "connection_limit", "the sidecar there has too many connections"),
    ResetCode.NO_DESTINATION: (Flag.CONNECT, "no_original_destination", "the sidecar there cannot tell where to"),
    ResetCode.IDLE: (Flag.TIMEOUT, "idle_timeout", "no byte went either way for as long as the sidecar there allows"),
    ResetCode.DRAINED: (Flag.DRAIN, "drained", "the sidecar there ended before the connection did"),
    ResetCode.REVOKED: (Flag.CERT_REVOKED, "revoked", "our certificate was revoked"),
    ResetCode.RATE_LIMITED: (
        Flag.RATE_LIMITED,
        "rate_limited",
        "we open connections faster than the sidecar there allows",
    ),
    ResetCode.MOVE_FAILED: (Flag.NONE, "reset_by_peer", "it could not move to a connection of its own"),
    ResetCode.INTERNAL_ERROR: (Flag.NONE, "internal_error", "a bug of the sidecar there ended it"),
    ResetCode.RESET_BY_APPLICATION: (Flag.NONE, "reset_by_peer", "the application there reset the connection"),
}
MOVED_NOTHING: Final = Verdict(
    Flag.NONE,
    "moved_nothing",
    "a connection in a tunnel was to move here, but its tunnel ends in another process or pod; it stays where it is",
)
_IDENTITY_ADVICE: Final = "If it should be let in, change --trust-domain, --allow or --expect here."
# What pqtls and proxy.identity say: the flag, and what to do.
_KNOWN: Final[dict[str, tuple[Flag, str]]] = {
    "expired": (Flag.IDENTITY_ERROR, "Issue the peer a new certificate, and compare both machines' clocks."),
    "not_yet_valid": (Flag.IDENTITY_ERROR, "Compare both machines' clocks."),
    "unknown_root": (
        Flag.IDENTITY_ERROR,
        "If the peer belongs to this mesh, give both sides the same root (ca.crt).",
    ),
    "wrong_key_type": (Flag.IDENTITY_ERROR, "Issue the peer a certificate with a key of that type."),
    "chain_too_long": (Flag.IDENTITY_ERROR, "Shorten the peer's chain."),
    "unreadable": (Flag.IDENTITY_ERROR, "Issue the peer a new certificate."),
    "bad_certificate": (Flag.IDENTITY_ERROR, "Issue the peer a new certificate with `qbitel ca issue`."),
    "wrong_usage": (Flag.IDENTITY_ERROR, "Issue the peer a certificate for TLS client and server."),
    "no_identity": (Flag.IDENTITY_ERROR, "Issue the peer a certificate with one spiffe:// URI."),
    "no_certificate": (Flag.IDENTITY_ERROR, "The peer must present a certificate of this mesh."),
    "identity_refused": (Flag.IDENTITY_ERROR, _IDENTITY_ADVICE),
    "foreign_trust_domain": (Flag.IDENTITY_ERROR, _IDENTITY_ADVICE),
    "unexpected_identity": (Flag.IDENTITY_ERROR, _IDENTITY_ADVICE),
    "revoked": (Flag.CERT_REVOKED, "Issue the peer a new certificate, if it should be let in."),
    "stale_crl": (Flag.CERT_REVOKED, "Give this side a current revocation list."),
    "session": (Flag.IDENTITY_ERROR, "The peer's next connection makes a full handshake."),
    "nothing_in_common": (Flag.TLS_FAILURE, "Give both sides the same --profile."),
    "not_tls": (Flag.TLS_FAILURE, "The peer does not speak TLS: is there a sidecar or a TLS server at that port?"),
    "protocol_violation": (Flag.TLS_FAILURE, "The peer's TLS breaks RFC 8446, or something altered it on the way."),
    "decode_error": (Flag.TLS_FAILURE, "The peer's TLS breaks RFC 8446, or something altered it on the way."),
    "truncated": (Flag.TLS_FAILURE, "The peer crashed, or something on the way cut the connection."),
    "alert_received": (Flag.TLS_FAILURE, "The other side's log says why."),
    "peer_error": (Flag.TLS_FAILURE, "The other side's log may say more."),
}
# What the peer tells us in an alert is its view of us: other advice than for the same fault of the peer's.
_ALERT_ADVICE: Final[dict[Alert, tuple[Flag, str]]] = {
    Alert.CERTIFICATE_EXPIRED: (
        Flag.IDENTITY_ERROR,
        "Our certificate has expired or is not valid yet: renew it, and compare clocks.",
    ),
    Alert.UNKNOWN_CA: (Flag.IDENTITY_ERROR, "The peer does not know our root: give both sides the same ca.crt."),
    Alert.BAD_CERTIFICATE: (Flag.IDENTITY_ERROR, "The peer does not like our certificate; its log says why."),
    Alert.UNSUPPORTED_CERTIFICATE: (Flag.IDENTITY_ERROR, "The peer does not take our kind of key."),
    Alert.CERTIFICATE_REVOKED: (Flag.CERT_REVOKED, "Our certificate was revoked: renew it."),
    Alert.CERTIFICATE_UNKNOWN: (Flag.IDENTITY_ERROR, "The peer does not like our certificate; its log says why."),
    Alert.CERTIFICATE_REQUIRED: (Flag.IDENTITY_ERROR, "The peer wants a certificate; give one with --cert or --certs."),
    Alert.ACCESS_DENIED: (
        Flag.IDENTITY_ERROR,
        "The peer does not let our identity in: see its --trust-domain, --allow or --expect.",
    ),
    Alert.HANDSHAKE_FAILURE: (Flag.TLS_FAILURE, "We have no group or scheme in common: give both the same --profile."),
    Alert.INSUFFICIENT_SECURITY: (Flag.TLS_FAILURE, "Give both sides the same --profile."),
    Alert.PROTOCOL_VERSION: (Flag.TLS_FAILURE, "The peer does not speak TLS 1.3."),
    Alert.NO_APPLICATION_PROTOCOL: (Flag.TLS_FAILURE, "The peer is no sidecar of this mesh."),
}
_UNFINISHED: Final = {"handshake_timeout": Flag.TIMEOUT, "handshake_evicted": Flag.RATE_LIMITED}
# Slugs of this room's own. Together with those above they are all that a label may be.
_OWN: Final = frozenset(
    {
        "-", "alert_sent", "closed_early", "connect_failed", "connect_timeout", "connection_limit", "denied_by_peer",
        "denied_by_policy", "destination_connection_limit", "destination_pending_limit", "drained", "fallback_withheld",
        "first_bytes_timeout", "foreign_tls", "handshake_evicted", "handshake_reset", "handshake_timeout",
        "idle_timeout", "internal_error", "moved_nothing", "no_endpoint", "no_original_destination",
        "peer_connection_limit", "peer_silent", "plaintext_refused", "rate_limited", "reset_by_application",
        "reset_by_peer", "socket_error", "stalled", "tunnel_expired", "tunnel_violation", "workload_connection_limit",
    }
)  # fmt: skip
SLUGS: Final = frozenset(_KNOWN) | _OWN


def slug(reason: str) -> str:
    """`reason` where it is one of the closed set, else "other": a metric's label must not grow with what peers do."""
    return reason if reason in SLUGS else "other"


def of_error(error: Exception) -> Verdict:
    """The verdict on a connection that `error` ended in one of its phases."""
    match error:
        case Refused():
            return error.verdict
        case AlertReceived(alert=Alert() as alert):
            flag, advice = _ALERT_ADVICE.get(alert, _KNOWN["alert_received"])
            return Verdict(flag, error.reason, _with_advice(str(error), advice), refused=True)
        case TunnelViolation():
            return Verdict(
                Flag.TLS_FAILURE,
                "tunnel_violation",
                f"the other sidecar broke the tunnel's framing: {error}. Run the same version on both sides.",
            )
        case PeerError():
            flag, advice = _KNOWN.get(error.reason, _KNOWN["peer_error"])
            # A stream that was cut had been let in: worth a flag, but nobody refused anybody.
            refused = not isinstance(error, TruncatedStream)
            return Verdict(flag, error.reason, _with_advice(str(error), advice), refused=refused)
        case HandshakeFailed():
            flag = _UNFINISHED.get(error.reason, Flag.TLS_FAILURE)
            return Verdict(flag, error.reason, str(error), refused=True)
        case ConnectFailed():
            if error.timed_out:
                return Verdict(Flag.TIMEOUT, "connect_timeout", str(error), refused=True)
            return Verdict(Flag.CONNECT, "connect_failed", str(error), refused=True)
        case NoOriginalDestination():
            return Verdict(Flag.CONNECT, "no_original_destination", str(error), refused=True)
        case OSError():
            return Verdict(Flag.NONE, "socket_error", f"the connection broke: {error.strerror or error}")
    raise error


def of_outcome(outcome: Outcome, idle_timeout: float) -> Verdict:
    """The verdict on a connection whose relay ended."""
    match outcome.end:
        case End.CLOSED:
            return CLOSED
        case End.RESET_BY_APPLICATION | End.RESET_BY_PEER:
            who = "application" if outcome.end is End.RESET_BY_APPLICATION else "other side"
            return Verdict(Flag.NONE, outcome.end.value, f"the {who} reset the connection ({_cause(outcome.error)})")
        case End.TLS_ERROR if outcome.error is not None:
            return of_error(outcome.error)
        case End.IDLE:
            return Verdict(Flag.TIMEOUT, "idle_timeout", f"no byte went either way for {idle_timeout:g} s")
        case End.STALLED:
            return STALLED
        case End.DRAINED:
            return DRAINED
        case End.REVOKED:
            return REVOKED
        case End.DENIED if isinstance(outcome.error, Refused):
            return outcome.error.verdict
        case End.CONNECT_FAILED:
            return Verdict(
                Flag.CONNECT,
                "connect_failed",
                f"cannot connect to the application: {_cause(outcome.error)}",
                refused=True,
            )
        case End.CONNECT_TIMEOUT:
            return Verdict(
                Flag.TIMEOUT,
                "connect_timeout",
                "the application does not answer; is it up, and does it accept?",
                refused=True,
            )
        case End.REFUSED if isinstance(outcome.error, StreamReset):
            return _refused_by_peer(outcome.error.code)
        case End.PEER_SILENT:
            return PEER_SILENT
    return Verdict(Flag.NONE, "internal_error", f"a bug of the sidecar ended it: {outcome.error!r}; please report it")


def _refused_by_peer(code: ResetCode) -> Verdict:
    flag, reason, sentence = _BY_PEER[code]
    return Verdict(flag, reason, f"{sentence}; the other sidecar's log says more", refused=True)


def _with_advice(sentence: str, advice: str) -> str:
    return f"{sentence.rstrip('.')}. {advice}"


def _cause(error: Exception | None) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
