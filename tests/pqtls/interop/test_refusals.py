"""Refusals between OpenSSL and us, as each end sees them: who refuses, with which alert, and what the other is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

import pqtls
from tests.support.openssl_peer import (
    GROUPS,
    OpenSslPeer,
    OpenSslRefused,
    connected_to_openssl,
    openssl_context,
    ours_as,
    shake_hands,
    theirs_against,
)
from tests.support.pki import DAY, NOW, Issued, credential, identity, leaf, make_certificate, root, uri

ROLES = ("client", "server")
OTHER_ROOT = "Another Root"

by_role = pytest.mark.parametrize("role", ROLES)
by_profile = pytest.mark.parametrize("profile", tuple(GROUPS))


def other(role: str) -> str:
    return "server" if role == "client" else "client"


def special_leaf(name: str, **changes: Any) -> Issued:
    return make_certificate(issuer=root(), subject=name, names=(uri(identity(name)),), **changes)


def expired(name: str) -> Issued:
    return special_leaf(name, not_before=NOW - 3 * DAY, not_after=NOW - DAY)


def not_yet_valid(name: str) -> Issued:
    return special_leaf(name, not_before=NOW + DAY, not_after=NOW + 3 * DAY)


def of_another_root(name: str) -> Issued:
    return leaf(name, OTHER_ROOT)


def for_the_other_purpose(name: str) -> Issued:
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if name == "server" else ExtendedKeyUsageOID.SERVER_AUTH
    return special_leaf(name, purposes=(purpose,))


def we_refuse(ours: pqtls.Connection, theirs: OpenSslPeer) -> pqtls.PeerError:
    """Demand that we end the handshake, and that OpenSSL is told so by the same alert; return our error."""
    with pytest.raises(pqtls.PeerError) as refusal:
        shake_hands(ours, theirs)
    assert not isinstance(refusal.value, pqtls.AlertReceived)
    assert ours.events() == []
    assert refusal.value.alert is not None
    with pytest.raises(OpenSslRefused):
        theirs.feed(ours.data_to_send())
        theirs.read()  # a client of OpenSSL has finished by then, and learns it when it reads
    assert theirs.alerts_received == [refusal.value.alert.name.lower()]
    return refusal.value


def they_refuse(ours: pqtls.Connection, theirs: OpenSslPeer) -> tuple[str, pqtls.AlertReceived]:
    """Demand that OpenSSL ends the handshake, and that we are told so; return its reason and our error."""
    with pytest.raises(OpenSslRefused) as reason:
        shake_hands(ours, theirs)
    with pytest.raises(pqtls.AlertReceived) as refusal:
        ours.receive_data(theirs.output())
    assert refusal.value.alert is not None
    assert theirs.alerts_sent == [refusal.value.alert.name.lower()]
    assert not ours.has_data_to_send
    return str(reason.value), refusal.value


# -- we refuse ----------------------------------------------------------------------------------------------------


@by_profile
def test_a_client_of_openssl_without_a_certificate_is_told_that_one_is_required(profile: str) -> None:
    theirs = OpenSslPeer(openssl_context(profile), is_client=True)
    refusal = we_refuse(ours_as("server", profile), theirs)
    assert (refusal.alert, refusal.reason) == (pqtls.Alert.CERTIFICATE_REQUIRED, "no_certificate")


@by_role
@by_profile
@pytest.mark.parametrize(
    ("make", "alert", "reason"),
    [
        (of_another_root, "unknown_ca", "unknown_root"),
        (expired, "certificate_expired", "expired"),
        (not_yet_valid, "certificate_expired", "not_yet_valid"),
        (for_the_other_purpose, "bad_certificate", "wrong_usage"),
    ],
)
def test_a_certificate_that_we_do_not_accept_is_refused_with_the_alert_that_says_why(
    role: str, profile: str, make: Callable[[str], Issued], alert: str, reason: str
) -> None:
    refusal = we_refuse(ours_as(role, profile), theirs_against(role, profile, make(other(role))))
    assert isinstance(refusal, pqtls.CertificateRefused)
    assert (refusal.alert, refusal.reason) == (pqtls.Alert[alert.upper()], reason)


@by_role
def test_an_identity_that_the_owner_does_not_want_is_denied_access(role: str) -> None:
    def decide(peer: str) -> None:
        raise pqtls.IdentityRefused(f"{peer} has no business here")

    refusal = we_refuse(ours_as(role, "hybrid-l5", accept_identity=decide), theirs_against(role, "hybrid-l5"))
    assert (refusal.alert, refusal.reason) == (pqtls.Alert.ACCESS_DENIED, "identity_refused")
    assert identity(other(role)) in str(refusal)


@by_profile
def test_a_client_of_openssl_with_none_of_our_groups_meets_a_handshake_failure(profile: str) -> None:
    theirs = theirs_against("server", profile, groups=b"X25519:P-256:ffdhe2048")
    refusal = we_refuse(ours_as("server", profile), theirs)
    assert refusal.alert is pqtls.Alert.HANDSHAKE_FAILURE
    assert refusal.reason == "nothing_in_common"
    assert "0x001d" in str(refusal)


@by_profile
def test_a_client_of_openssl_that_speaks_tls_1_2_only_is_told_so(profile: str) -> None:
    theirs = theirs_against(
        "server",
        profile,
        groups=b"P-256:P-384",
        signatures=b"ecdsa_secp256r1_sha256:mldsa87",
        maximum_version=SSL.TLS1_2_VERSION,
    )
    refusal = we_refuse(ours_as("server", profile), theirs)
    assert refusal.alert is pqtls.Alert.PROTOCOL_VERSION


@pytest.mark.parametrize("profile", ["hybrid-l5", "cnsa2"])
def test_a_client_of_openssl_that_does_not_take_our_signatures_meets_a_handshake_failure(profile: str) -> None:
    theirs = theirs_against("server", profile, signatures=b"mldsa65:ecdsa_secp384r1_sha384")
    assert we_refuse(ours_as("server", profile), theirs).alert is pqtls.Alert.HANDSHAKE_FAILURE


@pytest.mark.parametrize("profile", ["hybrid-l5", "cnsa2"])
@pytest.mark.parametrize("suites", [b"TLS_AES_128_GCM_SHA256", b"TLS_CHACHA20_POLY1305_SHA256"])
def test_a_client_of_openssl_without_a_suite_of_the_profile_meets_a_handshake_failure(
    profile: str, suites: bytes
) -> None:
    theirs = theirs_against("server", profile, suites=suites)
    assert we_refuse(ours_as("server", profile), theirs).alert is pqtls.Alert.HANDSHAKE_FAILURE


@by_profile
def test_a_client_of_openssl_with_another_application_protocol_is_told_so(profile: str) -> None:
    theirs = theirs_against("server", profile, alpn=(b"http/1.1",))
    refusal = we_refuse(ours_as("server", profile, alpn=(b"h2",)), theirs)
    assert refusal.alert is pqtls.Alert.NO_APPLICATION_PROTOCOL


@by_role
def test_an_end_that_demands_a_protocol_refuses_one_that_names_none(role: str) -> None:
    ours = ours_as(role, "hybrid-l5", alpn=(b"h2",), require_alpn=True)
    assert we_refuse(ours, theirs_against(role, "hybrid-l5")).alert is pqtls.Alert.NO_APPLICATION_PROTOCOL


# -- OpenSSL refuses ----------------------------------------------------------------------------------------------


@by_role
@by_profile
@pytest.mark.parametrize(
    ("make", "alert"),
    [
        (of_another_root, "unknown_ca"),
        (expired, "certificate_expired"),
        (not_yet_valid, "bad_certificate"),
        (for_the_other_purpose, "unsupported_certificate"),
    ],
)
def test_openssl_refuses_our_certificate_and_we_say_with_which_alert(
    role: str, profile: str, make: Callable[[str], Issued], alert: str
) -> None:
    ours = ours_as(role, profile, credential=credential(make(role)))
    reason, refusal = they_refuse(ours, theirs_against(role, profile))
    assert reason == "certificate verify failed"
    assert refusal.alert is pqtls.Alert[alert.upper()]
    assert alert in str(refusal)
    assert refusal.reason == "alert_received"


@by_profile
def test_a_server_of_openssl_with_none_of_our_groups_refuses_us(profile: str) -> None:
    reason, refusal = they_refuse(ours_as("client", profile), theirs_against("client", profile, groups=b"X25519:P-256"))
    assert refusal.alert is pqtls.Alert.HANDSHAKE_FAILURE
    assert reason == "no suitable key share"


@by_profile
def test_a_server_of_openssl_that_speaks_tls_1_2_only_refuses_us(profile: str) -> None:
    theirs = theirs_against("client", profile, groups=b"P-256", maximum_version=SSL.TLS1_2_VERSION)
    _, refusal = they_refuse(ours_as("client", profile), theirs)
    assert refusal.alert is pqtls.Alert.PROTOCOL_VERSION


def test_a_server_of_openssl_without_our_suite_refuses_us() -> None:
    theirs = theirs_against("client", "hybrid-l5", suites=b"TLS_AES_128_GCM_SHA256")
    _, refusal = they_refuse(ours_as("client", "hybrid-l5"), theirs)
    assert refusal.alert is pqtls.Alert.HANDSHAKE_FAILURE


def test_a_server_of_openssl_whose_certificate_we_cannot_verify_refuses_us() -> None:
    theirs = theirs_against("client", "hybrid-l5", signatures=b"mldsa65")
    _, refusal = they_refuse(ours_as("client", "hybrid-l5"), theirs)
    assert refusal.alert is pqtls.Alert.HANDSHAKE_FAILURE


@by_role
def test_openssl_hears_our_abort(role: str) -> None:
    ours, theirs = connected_to_openssl(role)
    ours.abort(pqtls.Alert.INTERNAL_ERROR)
    theirs.feed(ours.data_to_send())
    with pytest.raises(OpenSslRefused, match="internal error"):
        theirs.read()
    assert theirs.alerts_received == ["internal_error"]
