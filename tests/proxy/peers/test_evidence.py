"""What shows that a destination speaks no TLS of the mesh, and what an attacker or an accident may look like."""

from __future__ import annotations

import pytest

from pqtls.errors import (
    Alert,
    AlertReceived,
    CertificateRefused,
    DecodeError,
    NegotiationRefused,
    NotTls,
    ProtocolViolation,
    TruncatedStream,
)
from proxy.config import Endpoint
from proxy.handshake import HandshakeFailed
from proxy.peers.evidence import MESH_SECONDS, PLAINTEXT_SECONDS, REASONS, Memory, evidence_in
from proxy.sockets import ConnectFailed

WHERE = Endpoint("10.0.0.1", 80)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotTls("HTTP"), "plain_answer"),
        (AlertReceived("", Alert.PROTOCOL_VERSION), "foreign_tls"),
        (AlertReceived("", Alert.HANDSHAKE_FAILURE), "foreign_tls"),
        (AlertReceived("", Alert.NO_APPLICATION_PROTOCOL), "foreign_tls"),
        (NegotiationRefused("no ALPN"), "foreign_tls"),
        (ProtocolViolation("an older TLS", Alert.PROTOCOL_VERSION), "foreign_tls"),
    ],
)
def test_an_honest_destination_without_a_sidecar_says_so(error, reason):
    for at_tunnel_port in (False, True):
        assert evidence_in(error, at_tunnel_port=at_tunnel_port) == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    "error",
    [
        ConnectFailed("no answer", timed_out=True),
        ConnectFailed("no route"),
        HandshakeFailed("cut", "handshake_reset"),
        HandshakeFailed("silent", "handshake_timeout"),
        TruncatedStream("cut"),
        CertificateRefused("another root", Alert.UNKNOWN_CA, "unknown_root"),
        AlertReceived("", Alert.UNKNOWN_CA),
        AlertReceived("", Alert.ACCESS_DENIED),
        AlertReceived("", Alert.INTERNAL_ERROR),
        DecodeError("altered on the way"),
        ProtocolViolation("a downgrade", Alert.ILLEGAL_PARAMETER),
        ConnectionResetError(),
    ],
)
def test_silence_resets_and_refusals_show_nothing(error):
    for at_tunnel_port in (False, True):
        assert evidence_in(error, at_tunnel_port=at_tunnel_port) is None


def test_a_refused_connection_shows_something_at_the_tunnel_port_alone():
    refused = ConnectFailed("refused", refused=True)
    assert evidence_in(refused, at_tunnel_port=True) == "tunnel_port_refused"
    assert evidence_in(refused, at_tunnel_port=False) is None


def test_evidence_is_remembered_for_a_minute():
    memory = Memory()
    assert memory.why_plaintext(WHERE, 0.0) is None
    memory.spoke_plaintext(WHERE, "plain_answer", 100.0)
    assert memory.why_plaintext(WHERE, 100.0 + PLAINTEXT_SECONDS - 1) == "plain_answer"
    assert memory.why_plaintext(WHERE, 100.0 + PLAINTEXT_SECONDS) is None


def test_a_destination_that_spoke_the_mesh_is_held_to_it_for_a_while():
    memory = Memory()
    assert memory.since_mesh(WHERE, 0.0) is None
    memory.spoke_plaintext(WHERE, "plain_answer", 50.0)
    memory.spoke_mesh(WHERE, 100.0)
    assert memory.why_plaintext(WHERE, 100.0) is None
    assert memory.since_mesh(WHERE, 110.0) == 10.0
    assert memory.since_mesh(WHERE, 100.0 + MESH_SECONDS) is None


def test_it_does_not_grow_with_the_destinations_that_are_dialled():
    memory = Memory()
    for port in range(5000):
        memory.spoke_plaintext(Endpoint("10.0.0.1", port), "plain_answer", 0.0)
        memory.spoke_mesh(Endpoint("10.0.0.2", port), 0.0)
    assert memory.why_plaintext(Endpoint("10.0.0.1", 0), 1.0) is None
    assert memory.why_plaintext(Endpoint("10.0.0.1", 4999), 1.0) == "plain_answer"
    assert memory.since_mesh(Endpoint("10.0.0.2", 0), 1.0) is None
    assert memory.since_mesh(Endpoint("10.0.0.2", 4999), 1.0) == 1.0


def test_an_operator_is_shown_who_is_spoken_to_in_plaintext():
    memory = Memory()
    memory.spoke_plaintext(Endpoint("10.0.0.9", 80), "foreign_tls", 0.0)
    memory.spoke_plaintext(WHERE, "plain_answer", 90.0)
    assert memory.describe(100.0, 10) == [{"address": "10.0.0.1:80", "reason": "plain_answer", "age_s": 10.0}]
