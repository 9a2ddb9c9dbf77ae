"""Flags, slugs and sentences for whatever ends a connection."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pqtls
from pqtls import errors
from pqtls.errors import Alert, AlertReceived, CertificateRefused, TruncatedStream
from proxy import reasons
from proxy.handshake import HandshakeFailed
from proxy.original_destination import NoOriginalDestination
from proxy.reasons import Flag
from proxy.relay import End, Outcome
from proxy.sockets import ConnectFailed


def reasons_of_the_engine() -> set[str]:
    """Every slug that pqtls can give an error: the classes' own, and those at the places where they are raised."""
    found = {
        kind.default_reason
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PeerError)
    }
    for path in Path(pqtls.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "CertificateRefused"
                and len(node.args) == 3
            ):
                found |= {part.value for part in ast.walk(node.args[2]) if isinstance(part, ast.Constant)}
    return found


def test_every_reason_of_the_engine_has_a_flag_and_advice():
    assert reasons_of_the_engine() - reasons.SLUGS == set()
    assert len(reasons_of_the_engine()) > 10


def test_an_unknown_reason_is_counted_as_other():
    assert reasons.slug("expired") == "expired"
    assert reasons.slug("something a peer made up") == "other"


@pytest.mark.parametrize(
    ("error", "flag", "reason", "advice"),
    [
        (CertificateRefused("x", Alert.CERTIFICATE_EXPIRED, "expired"), Flag.IDENTITY_ERROR, "expired", "clocks"),
        (AlertReceived("x", Alert.UNKNOWN_CA), Flag.IDENTITY_ERROR, "alert_received", "ca.crt"),
        (AlertReceived("x", Alert.CERTIFICATE_REVOKED), Flag.CERT_REVOKED, "alert_received", "renew"),
        (AlertReceived("x", Alert.DECODE_ERROR), Flag.TLS_FAILURE, "alert_received", "log"),
        (AlertReceived("x", None), Flag.TLS_FAILURE, "alert_received", "log"),
        (HandshakeFailed("slow", "handshake_timeout"), Flag.TIMEOUT, "handshake_timeout", "slow"),
        (HandshakeFailed("gone", "handshake_reset"), Flag.TLS_FAILURE, "handshake_reset", "gone"),
        (HandshakeFailed("many", "handshake_evicted"), Flag.RATE_LIMITED, "handshake_evicted", "many"),
        (ConnectFailed("silent", timed_out=True), Flag.TIMEOUT, "connect_timeout", "silent"),
        (ConnectFailed("refused"), Flag.CONNECT, "connect_failed", "refused"),
        (NoOriginalDestination("loop"), Flag.CONNECT, "no_original_destination", "loop"),
        (TruncatedStream("cut"), Flag.TLS_FAILURE, "truncated", "crashed"),
        (OSError(5, "broken"), Flag.NONE, "socket_error", "broken"),
    ],
)
def test_each_error_has_its_verdict(error, flag, reason, advice):
    verdict = reasons.of_error(error)
    assert (verdict.flag, verdict.reason) == (flag, reason)
    assert advice in verdict.message
    assert verdict.refused is not isinstance(error, OSError | TruncatedStream)


def test_a_bug_is_not_turned_into_a_verdict():
    with pytest.raises(ZeroDivisionError):
        reasons.of_error(ZeroDivisionError())


@pytest.mark.parametrize("end", list(End))
def test_every_end_of_a_relay_has_a_verdict_of_the_closed_sets(end):
    error = AlertReceived("x", Alert.BAD_RECORD_MAC) if end is End.TLS_ERROR else OSError(104, "reset")
    verdict = reasons.of_outcome(Outcome(end, 1, 2, error), 60)
    assert verdict.reason in reasons.SLUGS
    assert verdict.flag in Flag


def test_a_connection_that_new_policies_do_not_let_in_ends_with_their_verdict():
    refused = reasons.Refused(Flag.DENY, "denied_by_policy", "denied by rules[0] of the DENY policy shop/web")
    assert reasons.of_outcome(Outcome(End.DENIED, 1, 2, refused), 60) is refused.verdict
