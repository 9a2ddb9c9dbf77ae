"""The configurations that a credential and a state of trust become, and what outlives their change."""

from __future__ import annotations

import dataclasses

import pytest

from pqtls import (
    PROFILES,
    CertificateRefused,
    ClientConnection,
    ConfigurationError,
    HandshakeCompleted,
    ServerConnection,
    SessionReceived,
    TicketKeeper,
)
from pqtls.provider import default_provider
from pqtls.signatures import ECDSA_SECP256R1_SHA256
from proxy.credentials import Bundle, TlsSettings, TrustPem
from proxy.identity import IdentityRule
from tests.support import pki as support


@pytest.fixture
def settings():
    return TlsSettings(
        profiles=(PROFILES["qbitel"],),
        accept_identity=IdentityRule(frozenset(), frozenset()),
        tickets=TicketKeeper(default_provider()),
    )


@pytest.fixture
def client(pki, settings):
    return Bundle(pki.bundle("web").credential, pki.bundle("web").trust, settings)


@pytest.fixture
def server(pki, settings):
    return Bundle(pki.bundle("api").credential, pki.bundle("api").trust, settings)


def meet(client: Bundle, server: Bundle, *sessions) -> tuple[HandshakeCompleted, list]:
    """What the server found out, and the sessions that the client got."""
    config = dataclasses.replace(client.client(True), sessions=sessions)
    ends = ClientConnection(config), ServerConnection(server.server(True))
    for _ in range(10):
        for one, other in (ends, ends[::-1]):
            if data := one.data_to_send():
                other.receive_data(data)
    (completed,) = [event for event in ends[1].events() if isinstance(event, HandshakeCompleted)]
    return completed, [event.session for event in ends[0].events() if isinstance(event, SessionReceived)]


def test_sidecars_offer_one_another_large_records_and_foreign_peers_what_they_know(client):
    for config in (client.client(True), client.tunnel_client, client.move_client, client.server(True)):
        assert config.large_record_size_limit == 2**16 + 1
    for config in (client.client(False), client.server(False)):
        assert config.large_record_size_limit is None


def test_who_reads_along_by_a_key_log_sees_records_that_wireshark_knows(client, settings):
    watched = Bundle(client.credential, client.trust, dataclasses.replace(settings, key_log=lambda _line: None))
    for config in (watched.client(True), watched.tunnel_client, watched.move_client, watched.server(True)):
        assert config.large_record_size_limit is None


def test_mesh_connections_demand_our_alpn_and_foreign_ones_do_not(client):
    assert client.client(True).require_alpn
    assert client.server(True).require_alpn
    assert not client.client(False).require_alpn
    assert not client.server(False).require_alpn
    assert client.client(True) is client.client(True)


def test_a_renewal_of_our_own_certificate_keeps_the_tickets_that_we_gave(pki, client, server, settings):
    _, (session, *_) = meet(client, server)
    # Any other certificate; that its identity has not changed is whose business puts it there.
    renewed = Bundle(pki.bundle("web").credential, server.trust, settings)
    completed, _ = meet(client, renewed, session)
    assert completed.resumed


def test_an_old_session_is_judged_anew_where_the_roots_have_changed(pki, client, server, settings):
    _, (session, *_) = meet(client, server)
    both = TrustPem((pki.base / "api" / "ca.crt").read_bytes() + support.root("Another Root").certificate_pem)
    completed, _ = meet(client, Bundle(server.credential, both.anchors(), settings), session)
    assert not completed.resumed


def test_an_old_session_does_not_outlive_the_peers_root_or_its_revocation(pki, client, server, settings):
    _, (first, second, *_) = meet(client, server)
    root = (pki.base / "api" / "ca.crt").read_bytes()
    for session, trust, said in (
        (first, TrustPem(support.root("Another Root").certificate_pem), "no root that we trust"),
        (second, TrustPem(root, crls=pki.revocations("web")), "is revoked"),
    ):
        with pytest.raises(CertificateRefused, match=said):
            meet(client, Bundle(server.credential, trust.anchors(), settings), session)


def test_a_profile_that_does_not_take_our_key_is_refused(client, settings):
    classical = dataclasses.replace(PROFILES["compat"], signature_schemes=(ECDSA_SECP256R1_SHA256,))
    with pytest.raises(ConfigurationError, match="mldsa87"):
        Bundle(client.credential, client.trust, dataclasses.replace(settings, profiles=(classical,)))


def test_neither_roots_nor_keys_are_in_what_is_shown(client):
    assert "PRIVATE" not in repr(client.credential)
    assert repr(TrustPem(b"secretive")) == "TrustPem()"
