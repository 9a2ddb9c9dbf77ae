"""Whose fault, which alert, which slug."""

from __future__ import annotations

import pytest

from pqtls import errors
from pqtls.errors import Alert


def test_the_alerts_have_the_numbers_of_rfc_8446() -> None:
    assert {alert.name.lower(): int(alert) for alert in Alert} == {
        "close_notify": 0,
        "unexpected_message": 10,
        "bad_record_mac": 20,
        "record_overflow": 22,
        "handshake_failure": 40,
        "bad_certificate": 42,
        "unsupported_certificate": 43,
        "certificate_revoked": 44,
        "certificate_expired": 45,
        "certificate_unknown": 46,
        "illegal_parameter": 47,
        "unknown_ca": 48,
        "access_denied": 49,
        "decode_error": 50,
        "decrypt_error": 51,
        "protocol_version": 70,
        "insufficient_security": 71,
        "internal_error": 80,
        "inappropriate_fallback": 86,
        "user_canceled": 90,
        "missing_extension": 109,
        "unsupported_extension": 110,
        "unrecognized_name": 112,
        "bad_certificate_status_response": 113,
        "unknown_psk_identity": 115,
        "certificate_required": 116,
        "no_application_protocol": 120,
    }


@pytest.mark.parametrize(
    ("error", "alert", "reason"),
    [
        (errors.PeerError("x", Alert.INTERNAL_ERROR), Alert.INTERNAL_ERROR, "peer_error"),
        (errors.ProtocolViolation("x", Alert.DECRYPT_ERROR), Alert.DECRYPT_ERROR, "protocol_violation"),
        (errors.DecodeError("x"), Alert.DECODE_ERROR, "decode_error"),
        (errors.NotTls("x"), Alert.DECODE_ERROR, "not_tls"),
        (errors.NegotiationRefused("x"), Alert.HANDSHAKE_FAILURE, "nothing_in_common"),
        (errors.NegotiationRefused("x", Alert.PROTOCOL_VERSION), Alert.PROTOCOL_VERSION, "nothing_in_common"),
        (errors.CertificateRefused("x", Alert.UNKNOWN_CA), Alert.UNKNOWN_CA, "bad_certificate"),
        (errors.CertificateRefused("x", Alert.UNKNOWN_CA, "unknown_root"), Alert.UNKNOWN_CA, "unknown_root"),
        (errors.AlertReceived("x", Alert.UNKNOWN_CA), Alert.UNKNOWN_CA, "alert_received"),
        (errors.TruncatedStream("x"), None, "truncated"),
    ],
)
def test_each_fault_of_the_peer_has_its_alert_and_its_slug(
    error: errors.PeerError, alert: Alert | None, reason: str
) -> None:
    assert (error.alert, error.reason, str(error)) == (alert, reason, "x")
    assert isinstance(error, errors.TlsError)


def test_faults_of_the_peer_of_ours_and_of_the_operator_are_apart() -> None:
    trees = (errors.PeerError, errors.MisuseError, errors.ConfigurationError)
    for one in trees:
        assert issubclass(one, errors.TlsError)
        assert not any(issubclass(one, other) for other in trees if other is not one)


def test_a_refusal_of_an_identity_is_access_denied_unless_said_otherwise() -> None:
    refusal = errors.IdentityRefused("not you")
    assert (refusal.alert, refusal.reason) == (Alert.ACCESS_DENIED, "identity_refused")
    other = errors.IdentityRefused("not you", reason="policy", alert=Alert.CERTIFICATE_UNKNOWN)
    assert (other.alert, other.reason) == (Alert.CERTIFICATE_UNKNOWN, "policy")
