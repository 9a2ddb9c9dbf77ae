"""Handshakes with OpenSSL at the other end: in both roles, in each profile that OpenSSL speaks too."""

from __future__ import annotations

import datetime
from dataclasses import replace
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import pqtls
from pqtls.groups import SECP384R1MLKEM1024, X25519MLKEM768
from pqtls.messages import RETRY_RANDOM
from pqtls.profiles import COMPAT, HYBRID_L5, PROFILES
from tests.support.openssl_peer import GROUPS, OpenSslPeer, openssl_context, ours_as, shake_hands, theirs_against
from tests.support.pki import Issued, credential, identity, leaf, make_certificate, root, trust, uri

ROLES = ("client", "server")
PROFILE_NAMES = tuple(GROUPS)
# A group that OpenSSL knows and the profile does not list, for a first key share that we cannot use.
OTHER_GROUP = {"hybrid-l5": b"X25519MLKEM768", "cnsa2": b"X25519", "compat": b"P-256"}

by_role = pytest.mark.parametrize("role", ROLES)
by_profile = pytest.mark.parametrize("profile", PROFILE_NAMES)


def completed(connection: pqtls.Connection) -> pqtls.HandshakeCompleted:
    event, *others = connection.events()
    assert isinstance(event, pqtls.HandshakeCompleted)
    # OpenSSL's tickets come with the handshake's last bytes.
    assert all(isinstance(other, pqtls.SessionReceived) for other in others)
    return event


def other(role: str) -> str:
    return "server" if role == "client" else "client"


@cache
def intermediate() -> Issued:
    return make_certificate(issuer=root(), subject="Intermediate", is_ca=True, path_length=0)


@cache
def leaf_of_intermediate(name: str) -> Issued:
    return make_certificate(issuer=intermediate(), subject=name, names=(uri(identity(name)),))


@cache
def ecdsa_root() -> Issued:
    return make_certificate(issuer=None, subject="ECDSA Root", key=ec.generate_private_key(ec.SECP384R1()), is_ca=True)


def record_lengths(stream: bytes) -> list[int]:
    lengths = []
    while stream:
        lengths.append(int.from_bytes(stream[3:5], "big"))
        stream = stream[5 + lengths[-1] :]
    return lengths


def split_into_records(message: bytes, size: int) -> bytes:
    """Put one plaintext handshake message into records of `size` bytes each."""
    return b"".join(
        b"\x16\x03\x03" + len(piece).to_bytes(2, "big") + piece
        for piece in (message[start : start + size] for start in range(0, len(message), size))
    )


@by_role
@by_profile
def test_a_mutual_handshake_settles_what_the_profile_says_and_both_see_each_other(role: str, profile: str) -> None:
    names = {"server_name": "reviews.default.svc"} if role == "client" else {}
    ours = ours_as(role, profile, alpn=(b"qbitel-tunnel/1", b"h2"), **names)
    theirs = theirs_against(
        role, profile, alpn=(b"h2",), server_name=b"reviews.default.svc" if role == "server" else None
    )

    shake_hands(ours, theirs)

    event = completed(ours)
    assert event.peer_identity == identity(other(role))
    assert theirs.identity == identity(role)
    assert event.group == PROFILES[profile].groups[0].name == theirs.ssl.get_group_name()
    assert event.cipher_suite == "TLS_AES_256_GCM_SHA384" == theirs.ssl.get_cipher_name()
    assert event.signature_scheme == "mldsa87"
    assert event.client_authenticated
    assert theirs.ssl.get_protocol_version_name() == "TLSv1.3"
    assert event.alpn == b"h2" == theirs.ssl.get_alpn_proto_negotiated()
    assert event.server_name == "reviews.default.svc"
    assert theirs.ssl.get_servername() == b"reviews.default.svc"


@by_role
def test_without_alpn_and_server_name_none_is_negotiated(role: str) -> None:
    ours, theirs = ours_as(role, "hybrid-l5"), theirs_against(role, "hybrid-l5")
    shake_hands(ours, theirs)
    event = completed(ours)
    assert (event.alpn, event.server_name) == (None, None)
    assert theirs.ssl.get_alpn_proto_negotiated() == b""
    assert theirs.ssl.get_servername() is None


@by_role
@pytest.mark.parametrize("suite", ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
def test_compat_speaks_each_cipher_suite_of_tls_1_3_that_it_lists(role: str, suite: str) -> None:
    ours, theirs = ours_as(role, "compat"), theirs_against(role, "compat", suites=suite.encode())
    shake_hands(ours, theirs)
    assert completed(ours).cipher_suite == suite == theirs.ssl.get_cipher_name()
    ours.send_data(b"ping")
    theirs.feed(ours.data_to_send())
    assert theirs.read() == b"ping"
    theirs.write(b"pong")
    ours.receive_data(theirs.output())
    assert ours.events() == [pqtls.ApplicationData(b"pong")]


@by_role
@pytest.mark.parametrize(
    ("curve", "scheme"), [(ec.SECP256R1(), "ecdsa_secp256r1_sha256"), (ec.SECP384R1(), "ecdsa_secp384r1_sha384")]
)
def test_compat_takes_a_peer_with_a_classical_certificate_and_can_have_one(
    role: str, curve: ec.EllipticCurve, scheme: str
) -> None:
    def classical(name: str) -> Issued:
        return make_certificate(
            issuer=ecdsa_root(),
            subject=name,
            key=ec.generate_private_key(curve),
            names=(uri(identity(name)),),
        )

    ours = ours_as(role, "compat", credential=credential(classical(role)), trust=trust(ecdsa_root()))
    theirs = theirs_against(role, "compat", classical(other(role)), trust=(ecdsa_root(),))
    shake_hands(ours, theirs)
    event = completed(ours)
    assert event.signature_scheme == scheme
    assert event.peer_identity == identity(other(role))
    assert theirs.identity == identity(role)


@by_role
@by_profile
@pytest.mark.parametrize("piece", [1, 1000])
def test_a_handshake_that_comes_in_small_pieces_of_stream_completes(role: str, profile: str, piece: int) -> None:
    ours, theirs = ours_as(role, profile), theirs_against(role, profile)
    shake_hands(ours, theirs, piece=piece)
    assert completed(ours).peer_identity == identity(other(role))
    assert theirs.identity == identity(role)


@by_profile
@pytest.mark.parametrize("size", [1, 5, 600])
def test_a_client_hello_of_openssl_in_many_small_records_is_answered(profile: str, size: int) -> None:
    ours, theirs = ours_as("server", profile), theirs_against("server", profile)
    theirs.step()
    hello = theirs.output()
    (length,) = record_lengths(hello)
    ours.receive_data(split_into_records(hello[5:], size))
    assert length > 600
    shake_hands(ours, theirs)
    assert completed(ours).peer_identity == identity("client")


@by_profile
@pytest.mark.parametrize("size", [1, 5, 600])
def test_openssl_takes_our_client_hello_in_many_small_records(profile: str, size: int) -> None:
    ours, theirs = ours_as("client", profile), theirs_against("client", profile)
    theirs.feed(split_into_records(ours.data_to_send()[5:], size))
    shake_hands(ours, theirs)
    assert completed(ours).peer_identity == identity("server")


@by_profile
def test_a_client_of_openssl_whose_first_share_is_of_another_group_is_asked_for_ours(profile: str) -> None:
    ours = ours_as("server", profile)
    theirs = theirs_against("server", profile, groups=OTHER_GROUP[profile] + b":" + GROUPS[profile])
    wire = shake_hands(ours, theirs)
    assert RETRY_RANDOM in wire.from_us[0]
    assert len(wire.from_them) == 3  # hello, hello again, certificate to finished
    assert completed(ours).group == PROFILES[profile].groups[0].name == theirs.ssl.get_group_name()
    assert theirs.identity == identity("server")


def test_a_client_of_openssl_with_several_shares_is_answered_in_our_group_without_a_retry() -> None:
    ours = ours_as("server", "hybrid-l5")
    theirs = theirs_against("server", "hybrid-l5", groups=b"*X25519MLKEM768:*SecP384r1MLKEM1024:P-256")
    wire = shake_hands(ours, theirs)
    assert len(wire.from_them) == 2
    assert completed(ours).group == "SecP384r1MLKEM1024"


@pytest.mark.parametrize("suite", [b"TLS_AES_256_GCM_SHA384", b"TLS_AES_128_GCM_SHA256"])
def test_our_client_sends_its_hello_again_with_the_group_that_openssl_asks_for(suite: bytes) -> None:
    profile = replace(COMPAT, groups=(X25519MLKEM768, SECP384R1MLKEM1024))
    ours = ours_as("client", profile, alpn=(b"h2",), server_name="again.example")
    theirs = theirs_against("client", "compat", groups=b"SecP384r1MLKEM1024", suites=suite, alpn=(b"h2",))
    wire = shake_hands(ours, theirs)
    assert RETRY_RANDOM in wire.from_them[0]
    event = completed(ours)
    assert event.group == "SecP384r1MLKEM1024" == theirs.ssl.get_group_name()
    assert event.cipher_suite.encode() == suite
    assert (event.alpn, theirs.ssl.get_servername()) == (b"h2", b"again.example")
    assert theirs.identity == identity("client")


@by_role
@by_profile
def test_chains_with_an_intermediate_are_sent_and_verified_both_ways(role: str, profile: str) -> None:
    ours = ours_as(role, profile, credential=credential(leaf_of_intermediate(role), intermediate()))
    theirs = theirs_against(role, profile, leaf_of_intermediate(other(role)), intermediate())
    wire = shake_hands(ours, theirs)
    event = completed(ours)
    assert event.peer_identity == identity(other(role))
    assert event.peer_chain == (leaf_of_intermediate(other(role)).der, intermediate().der)
    assert theirs.identity == identity(role)
    verified = theirs.ssl.get_verified_chain(as_cryptography=True)
    assert verified is not None
    assert len(verified) == 3
    # The flight of Certificate and CertificateVerify does not fit one record, so a message spans two.
    assert max(len(spoken) for spoken in wire.from_us) > 2**14
    assert max(record_lengths(b"".join(wire.from_us))) == 2**14 + 17


@by_role
def test_the_root_that_openssl_appends_to_its_chain_does_no_harm(role: str) -> None:
    ours, theirs = ours_as(role, "hybrid-l5"), theirs_against(role, "hybrid-l5")
    wire = shake_hands(ours, theirs)
    assert completed(ours).peer_chain == (leaf(other(role)).der, root().der)
    assert max(len(spoken) for spoken in wire.from_them) > len(leaf("server").der) + len(root().der)


@by_profile
def test_each_session_ticket_of_openssl_becomes_a_session_and_data_flows_on(profile: str) -> None:
    ours, theirs = ours_as("client", profile), theirs_against("client", profile)
    wire = shake_hands(ours, theirs)
    assert theirs.established
    # After its one flight the server spoke again: two tickets in two records, which hold our certificate.
    tickets = record_lengths(wire.from_them[-1])
    assert len(wire.from_them) == 2
    assert len(tickets) >= 2
    completion, *received = ours.events()
    assert isinstance(completion, pqtls.HandshakeCompleted)
    sessions = [event.session for event in received if isinstance(event, pqtls.SessionReceived)]
    assert len(sessions) == len(received) == len(tickets)
    assert {session.facts.identity for session in sessions} == {identity("server")}
    theirs.write(b"behind the tickets")
    ours.receive_data(theirs.output())
    assert ours.events() == [pqtls.ApplicationData(b"behind the tickets")]


def test_tickets_that_come_through_the_fast_path_leave_no_trace_in_the_plaintext() -> None:
    ours, theirs = ours_as("client", "hybrid-l5"), theirs_against("client", "hybrid-l5")
    theirs.feed(ours.data_to_send())
    ours.receive_data(theirs.output())
    theirs.feed(ours.data_to_send())
    theirs.write(b"behind the tickets")
    records = theirs.output()
    room = bytearray(len(records))
    consumed, produced = ours.open_into(memoryview(records), memoryview(room))
    assert consumed == len(records)
    assert room[:produced] == b"behind the tickets"


@by_profile
def test_a_server_of_openssl_that_asks_for_no_certificate_gets_none(profile: str) -> None:
    ours, theirs = ours_as("client", profile), theirs_against("client", profile, verify=False)
    shake_hands(ours, theirs)
    event = completed(ours)
    assert not event.client_authenticated
    assert event.peer_identity == identity("server")
    assert theirs.ssl.get_peer_certificate(as_cryptography=True) is None
    ours.send_data(b"hello, whoever I am")
    theirs.feed(ours.data_to_send())
    assert theirs.read() == b"hello, whoever I am"


@by_role
def test_a_hello_with_the_default_offers_of_openssl_meets_compat(role: str) -> None:
    groups = b"?*X25519MLKEM768 / ?*X25519:?secp256r1 / ?X448:?secp384r1:?secp521r1 / ?ffdhe2048:?ffdhe3072"
    signatures = b"?mldsa65:?mldsa87:?mldsa44:ECDSA+SHA256:ECDSA+SHA384:ed25519:rsa_pss_rsae_sha256:RSA+SHA256"
    ours = ours_as(role, "compat")
    theirs = theirs_against(role, "compat", groups=groups, signatures=signatures)
    shake_hands(ours, theirs)
    assert completed(ours).group == "X25519MLKEM768"


@by_role
def test_the_time_of_validity_is_the_callers_now(role: str) -> None:
    ours = ours_as(role, "hybrid-l5", now=lambda: leaf("server").certificate.not_valid_after_utc)
    theirs = theirs_against(role, "hybrid-l5")
    shake_hands(ours, theirs)
    assert ours.handshake_complete
    late = leaf("server").certificate.not_valid_after_utc + datetime.timedelta(seconds=1)
    ours, theirs = ours_as(role, "hybrid-l5", now=lambda: late), theirs_against(role, "hybrid-l5")
    with pytest.raises(pqtls.CertificateRefused) as refusal:
        shake_hands(ours, theirs)
    assert refusal.value.alert is pqtls.Alert.CERTIFICATE_EXPIRED


def test_many_connections_of_one_openssl_context_stand_side_by_side() -> None:
    context = openssl_context("hybrid-l5", leaf("server"))
    pairs = [(ours_as("client", HYBRID_L5), OpenSslPeer(context, is_client=False)) for _ in range(5)]
    for ours, theirs in pairs:
        shake_hands(ours, theirs)
        ours.events()
    for number, (ours, theirs) in enumerate(pairs):
        ours.send_data(b"%d" % number)
        theirs.feed(ours.data_to_send())
    assert [theirs.read() for _, theirs in pairs] == [b"0", b"1", b"2", b"3", b"4"]
