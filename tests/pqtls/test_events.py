"""What a connection tells its owner."""

from __future__ import annotations

import dataclasses

import pytest

import pqtls
from pqtls.events import ApplicationData, HandshakeCompleted
from pqtls.x509_reading import path_id
from tests.support import pki


def test_events_are_values_that_nobody_changes() -> None:
    assert ApplicationData(b"x") == ApplicationData(b"x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        ApplicationData(b"x").data = b"y"  # type: ignore[misc]


def test_a_completed_handshake_says_everything_about_the_peer_and_shows_no_certificate() -> None:
    pair = (
        pqtls.ClientConnection(pki.client_config(server_name="web.example", alpn=(b"one",))),
        pqtls.ServerConnection(pki.server_config(alpn=(b"one",))),
    )
    pki.pump(*pair)
    expected = {
        "profile": "qbitel",
        "group": "X25519MLKEM1024",
        "signature_scheme": "mldsa87",
        "cipher_suite": "TLS_AES_256_GCM_SHA384",
        "alpn": b"one",
        "server_name": "web.example",
        "client_authenticated": True,
        "resumed": False,
    }
    for connection, peer in zip(pair, ("server", "client"), strict=True):
        (event,) = connection.events()
        certificate = pki.leaf(peer).certificate
        assert event == HandshakeCompleted(
            **expected,  # type: ignore[arg-type]  # one mapping for many types
            peer_identity=pki.identity(peer),
            peer_chain=(pki.leaf(peer).der,),
            peer_path_ids=(path_id(certificate.issuer, certificate.serial_number),),
            peer_valid_until=certificate.not_valid_after_utc,
        )
        assert event.peer_certificate == pki.leaf(peer).der
        assert "peer_chain" not in repr(event)
