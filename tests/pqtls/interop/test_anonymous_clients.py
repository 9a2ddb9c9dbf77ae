"""Clients without a certificate, with OpenSSL at the other end: served, asked, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL

import pqtls
from tests.support.openssl_peer import (
    GROUPS,
    OpenSslPeer,
    OpenSslRefused,
    openssl_context,
    ours_as,
    shake_hands,
    theirs_against,
)
from tests.support.pki import identity, leaf
from tests.support.resumption import Mesh

by_profile = pytest.mark.parametrize("profile", tuple(GROUPS))
OPTIONAL = {"client_authentication": pqtls.ClientAuthentication.OPTIONAL}


def completed(connection: pqtls.Connection) -> pqtls.HandshakeCompleted:
    (event,) = connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    return event


def optional_server(profile: str) -> OpenSslPeer:
    """A server of OpenSSL's that asks for a certificate and goes on without."""
    context = openssl_context(profile, leaf("server"))
    context.set_verify(SSL.VERIFY_PEER)
    return OpenSslPeer(context, is_client=False)


def talk(ours: pqtls.Connection, theirs: OpenSslPeer) -> None:
    """Data goes both ways, and both directions close."""
    ours.send_data(b"ping")
    theirs.feed(ours.data_to_send())
    assert theirs.read() == b"ping"
    theirs.write(b"pong")
    theirs.close()
    ours.receive_data(theirs.output())
    assert ours.events() == [pqtls.ApplicationData(b"pong"), pqtls.PeerClosed()]
    ours.send_close_notify()
    theirs.feed(ours.data_to_send())
    assert theirs.read() == b""
    assert theirs.peer_closed


@by_profile
def test_a_client_of_openssl_without_a_certificate_is_served_as_nobody(profile: str) -> None:
    ours = ours_as("server", profile, **OPTIONAL)
    theirs = OpenSslPeer(openssl_context(profile), is_client=True)
    shake_hands(ours, theirs)
    event = completed(ours)
    assert (event.peer_identity, event.peer_certificate, event.client_authenticated) == ("", b"", False)
    assert theirs.identity == identity("server")
    talk(ours, theirs)


@by_profile
@pytest.mark.parametrize("piece", [1, 1000])
def test_a_client_of_openssl_without_a_certificate_may_speak_in_small_pieces(profile: str, piece: int) -> None:
    ours = ours_as("server", profile, **OPTIONAL)
    theirs = OpenSslPeer(openssl_context(profile), is_client=True)
    shake_hands(ours, theirs, piece=piece)
    assert completed(ours).peer_identity == ""


@by_profile
def test_a_client_of_openssl_with_a_certificate_is_known_by_it_at_the_same_server(profile: str) -> None:
    ours, theirs = ours_as("server", profile, **OPTIONAL), theirs_against("server", profile)
    shake_hands(ours, theirs)
    event = completed(ours)
    assert (event.peer_identity, event.peer_certificate) == (identity("client"), leaf("client").der)
    talk(ours, theirs)


@by_profile
def test_a_client_of_openssl_whose_certificate_is_of_another_root_is_refused_and_not_served_as_nobody(
    profile: str,
) -> None:
    ours = ours_as("server", profile, **OPTIONAL)
    theirs = theirs_against("server", profile, leaf("client", "Another Root"))
    with pytest.raises(pqtls.CertificateRefused) as refusal:
        shake_hands(ours, theirs)
    assert refusal.value.alert is pqtls.Alert.UNKNOWN_CA
    assert ours.events() == []


def test_a_client_of_openssl_without_a_certificate_gets_no_tickets_where_another_gets_some() -> None:
    sizes: list[int] = []
    for chain in ((), (leaf("client"),)):
        mesh = Mesh()
        ours = ours_as("server", "hybrid-l5", tickets=mesh.tickets, **OPTIONAL)
        theirs = OpenSslPeer(openssl_context("hybrid-l5", *chain), is_client=True)
        wire = shake_hands(ours, theirs)
        # Our flight is one entry; tickets are another, behind the client's Finished.
        sizes.append(len(wire.from_us))
    assert sizes == [1, 2]


@by_profile
@pytest.mark.parametrize("server", ["asks not", "asks and goes on"])
def test_a_server_of_openssl_that_needs_no_certificate_serves_our_client_without_one(profile: str, server: str) -> None:
    ours = ours_as("client", profile, credential=None)
    theirs = theirs_against("client", profile, verify=False) if server == "asks not" else optional_server(profile)
    shake_hands(ours, theirs)
    # No ticket of OpenSSL's is among the events: our hello says that they are of no use.
    event = completed(ours)
    assert (event.peer_identity, event.client_authenticated) == (identity("server"), False)
    assert theirs.ssl.get_peer_certificate(as_cryptography=True) is None
    talk(ours, theirs)


@by_profile
def test_a_server_of_openssl_that_goes_on_without_a_certificate_knows_our_client_by_the_one_it_has(
    profile: str,
) -> None:
    ours, theirs = ours_as("client", profile), optional_server(profile)
    shake_hands(ours, theirs)
    event = ours.events()[0]
    assert isinstance(event, pqtls.HandshakeCompleted)
    assert event.client_authenticated
    assert theirs.identity == identity("client")


@by_profile
def test_a_server_of_openssl_that_requires_a_certificate_refuses_our_client_and_we_say_why(profile: str) -> None:
    changes: dict[str, Any] = {"credential": None}
    ours, theirs = ours_as("client", profile, **changes), theirs_against("client", profile)
    with pytest.raises(OpenSslRefused, match="peer did not return a certificate"):
        shake_hands(ours, theirs)
    with pytest.raises(pqtls.AlertReceived, match="certificate_required") as refusal:
        ours.receive_data(theirs.output())
    assert refusal.value.alert is pqtls.Alert.CERTIFICATE_REQUIRED
    assert theirs.alerts_sent == ["certificate_required"]
