"""Resumption as a server decides it: when a ticket stands for the certificates, and every case in which it does not."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

import pqtls
from pqtls.errors import Alert, CertificateRefused, IdentityRefused, ProtocolViolation
from pqtls.groups import X25519MLKEM768, X25519MLKEM1024
from pqtls.profiles import CNSA2, COMPAT, HYBRID_L5, QBITEL
from pqtls.suites import TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256
from tests.support import pki
from tests.support.resumption import RECORD_HEADER, Mesh, meet

SECOND = datetime.timedelta(seconds=1)
# Facts of a full handshake, as its event says them, that a resumed one must repeat.
_SAME = (
    *("profile", "group", "signature_scheme", "cipher_suite", "peer_identity", "peer_path_ids"),
    "client_authenticated",
)


# -- when it works --------------------------------------------------------------------------------------------------


def test_a_session_resumes_without_certificates_and_says_the_same_of_the_peer() -> None:
    mesh = Mesh()
    full = meet(mesh.client(), mesh.server())
    again = meet(mesh.client(full.sessions[0]), mesh.server())
    assert (full.resumed, again.resumed) == (False, True)
    for before, after in ((full.at_client, again.at_client), (full.at_server, again.at_server)):
        assert [getattr(after, name) for name in _SAME] == [getattr(before, name) for name in _SAME]
        assert after.peer_chain == ()
        assert before.peer_chain
    again.client.send_data(b"to the server")
    again.server.send_data(b"to the client")
    pki.pump(again.client, again.server)
    assert again.server.events() == [pqtls.ApplicationData(b"to the server")]
    assert again.client.events() == [pqtls.ApplicationData(b"to the client")]


@pytest.mark.parametrize("profile", [QBITEL, HYBRID_L5, CNSA2, COMPAT], ids=lambda profile: profile.name)
def test_every_profile_resumes(profile: pqtls.Profile) -> None:
    mesh = Mesh()
    session = mesh.session(profiles=(profile,))
    again = meet(mesh.client(session, profiles=(profile,)), mesh.server(profiles=(profile,)))
    assert again.resumed
    assert again.at_client.profile == profile.name


def test_a_suite_of_sha256_resumes_too() -> None:
    mesh = Mesh()
    only = replace(COMPAT, cipher_suites=(TLS_AES_128_GCM_SHA256,))
    session = mesh.session(profiles=(only,))
    assert meet(mesh.client(session, profiles=(only,)), mesh.server(profiles=(only,))).resumed


def test_a_session_resumes_after_a_hello_retry_request() -> None:
    mesh = Mesh()
    both = replace(QBITEL, groups=(X25519MLKEM768, X25519MLKEM1024))
    session = mesh.session()
    client = pqtls.ClientConnection(mesh.client(session, profiles=(both,)))
    server = pqtls.ServerConnection(mesh.server())
    server.receive_data(client.data_to_send())
    retry = server.data_to_send()
    assert retry[RECORD_HEADER] == 2
    assert not server.handshake_complete
    client.receive_data(retry)
    pki.pump(client, server)
    for connection in (client, server):
        event = connection.events()[0]
        assert isinstance(event, pqtls.HandshakeCompleted)
        assert event.resumed


def test_a_resumed_connection_brings_sessions_of_its_own_that_resume_again() -> None:
    mesh = Mesh()
    session = mesh.session()
    for _ in range(3):
        again = meet(mesh.client(session), mesh.server())
        assert again.resumed
        (session, _) = again.sessions
        assert session.facts.identity == pki.identity("server")


def test_each_resumed_connection_has_a_key_exchange_and_secrets_of_its_own() -> None:
    mesh = Mesh({"single_use": False})
    session = mesh.session()
    pairs = [meet(mesh.client(session), mesh.server()) for _ in range(2)]
    assert all(pair.resumed for pair in pairs)
    secrets = {pair.client.export_keying_material("EXPORTER-test", b"", 32) for pair in pairs}
    assert len(secrets) == 2


def test_the_secrets_of_tickets_of_one_connection_differ() -> None:
    mesh = Mesh({"per_handshake": 4})
    sessions = meet(mesh.client(), mesh.server()).sessions
    assert len(sessions) == 4
    assert len({session.psk for session in sessions}) == 4
    assert len({session.ticket for session in sessions}) == 4
    assert len({session.age_add for session in sessions}) == 4


def test_the_alpn_protocol_and_server_name_are_those_of_the_new_hello() -> None:
    mesh = Mesh()
    session = meet(mesh.client(alpn=(b"one",), server_name="one.example"), mesh.server(alpn=(b"one",))).sessions[0]
    config = mesh.client(session, alpn=(b"two",), server_name="two.example")
    again = meet(config, mesh.server(alpn=(b"one", b"two")))
    assert again.resumed
    assert (again.at_server.alpn, again.at_server.server_name) == (b"two", "two.example")


# -- when it must not: the server -----------------------------------------------------------------------------------


def test_a_ticket_that_was_used_costs_a_full_handshake() -> None:
    mesh = Mesh()
    session = mesh.session()
    assert meet(mesh.client(session), mesh.server()).resumed
    assert not meet(mesh.client(session), mesh.server()).resumed


def test_a_ticket_may_be_used_again_where_the_server_says_so() -> None:
    mesh = Mesh({"single_use": False})
    session = mesh.session()
    assert all(meet(mesh.client(session), mesh.server()).resumed for _ in range(3))


def test_a_ticket_of_another_server_costs_a_full_handshake() -> None:
    session = Mesh().session()
    mesh = Mesh()
    assert not meet(mesh.client(session), mesh.server()).resumed


def test_a_ticket_for_a_server_without_tickets_costs_a_full_handshake_and_brings_none() -> None:
    mesh = Mesh()
    again = meet(mesh.client(mesh.session()), mesh.server(tickets=None))
    assert not again.resumed
    assert again.sessions == ()


@pytest.mark.parametrize("damage", ["forged", "truncated", "longer", "empty key", "flipped"])
def test_a_ticket_that_is_damaged_costs_a_full_handshake(damage: str) -> None:
    mesh = Mesh()
    session = mesh.session()
    ticket = {
        "forged": bytes(len(session.ticket)),
        "truncated": session.ticket[:-1],
        "longer": session.ticket + b"\0",
        "empty key": session.ticket[:8],
        "flipped": session.ticket[:100] + bytes((session.ticket[100] ^ 1,)) + session.ticket[101:],
    }[damage]
    assert not meet(mesh.client(replace(session, ticket=ticket)), mesh.server()).resumed
    assert meet(mesh.client(session), mesh.server()).resumed, "the damaged copy did not use it up"


def _at_server(mesh: Mesh, session: pqtls.Session, **changes: Any) -> bool:
    """Whether the server takes the session of a client that offers it whatever it knows itself."""
    client = pqtls.ClientConnection(mesh.client(session))
    server = pqtls.ServerConnection(mesh.server(**changes))
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    try:
        server.receive_data(client.data_to_send())
    except pqtls.PeerError:
        return False  # the full handshake found out why
    event = server.events()[0]
    assert isinstance(event, pqtls.HandshakeCompleted)
    return event.resumed


def _short_lived_client() -> pki.Issued:
    return pki.make_certificate(
        issuer=pki.root(),
        subject="short",
        names=(pki.uri(pki.identity("short")),),
        not_after=pki.NOW + datetime.timedelta(hours=1),
    )


def test_a_ticket_does_not_outlive_the_clients_certificate_by_a_second() -> None:
    for late, resumes in ((0, True), (1, False)):
        mesh = Mesh()
        short = pki.credential(_short_lived_client())
        session = meet(mesh.client(credential=short), mesh.server()).sessions[0]
        mesh.clock.advance(hours=1)
        offer = replace(session, lifetime=7200)  # a client that does not heed the lifetime
        server_clock = mesh.clock.now + late * SECOND
        assert _at_server(mesh, offer, now=lambda now=server_clock: now) is resumes


def test_the_lifetime_that_a_server_states_is_at_most_that_of_the_clients_certificate() -> None:
    mesh = Mesh()
    session = meet(mesh.client(credential=pki.credential(_short_lived_client())), mesh.server()).sessions[0]
    assert session.lifetime == 3600
    assert mesh.session().lifetime == mesh.tickets.lifetime_seconds


def test_a_client_whose_certificate_ends_this_second_gets_no_ticket() -> None:
    mesh = Mesh()
    mesh.clock.advance(hours=1)
    assert meet(mesh.client(credential=pki.credential(_short_lived_client())), mesh.server()).sessions == ()


def test_a_ticket_past_its_lifetime_costs_a_full_handshake() -> None:
    for step, resumes in ((0, True), (1, False)):
        mesh = Mesh({"lifetime": datetime.timedelta(minutes=10)})
        session = replace(mesh.session(), lifetime=3600)
        mesh.clock.advance(minutes=10, seconds=step)
        assert meet(mesh.client(session), mesh.server()).resumed is resumes


def test_a_ticket_of_another_profile_costs_a_full_handshake() -> None:
    mesh = Mesh()
    session = mesh.session()
    lying = replace(session, facts=replace(session.facts, profile="hybrid-l5"))
    both = (HYBRID_L5, QBITEL)
    assert not meet(mesh.client(lying, profiles=both), mesh.server(profiles=both)).resumed


def test_a_ticket_of_another_suite_than_the_hello_negotiates_costs_a_full_handshake() -> None:
    mesh = Mesh()
    session = mesh.session(profiles=(COMPAT,))
    for first in (TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256):
        other_order = replace(COMPAT, cipher_suites=(first, *COMPAT.cipher_suites))
        again = meet(mesh.client(session, profiles=(COMPAT,)), mesh.server(profiles=(other_order,)))
        assert not again.resumed
        assert again.at_client.cipher_suite == first.name
        session = again.sessions[0]


def test_a_ticket_made_under_other_roots_costs_a_full_handshake() -> None:
    mesh = Mesh()
    session = mesh.session()
    more = pki.trust(pki.root(), pki.root("Another Root"))
    assert not _at_server(mesh, session, trust=more)
    assert _at_server(mesh, session)


def test_a_ticket_of_a_client_that_was_revoked_since_is_refused_as_its_certificate_is() -> None:
    mesh = Mesh()
    session = mesh.session()
    server = mesh.server(trust=pki.trust_with_crl(pki.leaf("client")))
    with pytest.raises(CertificateRefused) as caught:
        meet(mesh.client(session), server)
    assert (caught.value.alert, caught.value.reason) == (Alert.CERTIFICATE_REVOKED, "revoked")


def test_a_list_that_revokes_somebody_else_leaves_a_ticket_as_good_as_it_was() -> None:
    mesh = Mesh()
    assert _at_server(mesh, mesh.session(), trust=pki.trust_with_crl(pki.leaf("somebody")))


def test_a_ticket_of_an_identity_that_is_refused_since_is_refused_as_its_certificate_is() -> None:
    mesh = Mesh()
    session = mesh.session()
    asked: list[str] = []

    def refuse(uri: str) -> None:
        asked.append(uri)
        raise IdentityRefused("no longer", reason="policy", alert=Alert.ACCESS_DENIED)

    with pytest.raises(CertificateRefused) as caught:
        meet(mesh.client(session), mesh.server(accept_identity=refuse))
    assert (caught.value.alert, caught.value.reason) == (Alert.ACCESS_DENIED, "policy")
    assert asked == [pki.identity("client")] * 2, "for the ticket, and for the certificate"


def test_when_the_record_of_used_tickets_is_full_tickets_cost_full_handshakes() -> None:
    mesh = Mesh({"capacity": 2, "per_handshake": 3})
    sessions = meet(mesh.client(), mesh.server()).sessions
    assert [meet(mesh.client(one), mesh.server()).resumed for one in sessions] == [True, True, False]


# -- replays --------------------------------------------------------------------------------------------------------


def test_a_replayed_hello_is_not_resumed_and_completes_nothing() -> None:
    mesh = Mesh()
    session = mesh.session()
    client, first = pqtls.ClientConnection(mesh.client(session)), pqtls.ServerConnection(mesh.server())
    hello = client.data_to_send()
    first.receive_data(hello)
    client.receive_data(first.data_to_send())
    flight = client.data_to_send()
    first.receive_data(flight)
    assert first.handshake_complete

    second = pqtls.ServerConnection(mesh.server())
    second.receive_data(hello)
    answer = second.data_to_send()
    assert len(answer) > 10_000, "a full handshake's flight, with the server's certificate and signature"
    with pytest.raises(ProtocolViolation) as caught:
        second.receive_data(flight)
    assert caught.value.alert is Alert.BAD_RECORD_MAC
    assert not second.handshake_complete
    assert second.events() == []
