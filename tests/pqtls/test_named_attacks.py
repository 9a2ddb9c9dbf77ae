"""The attacks that TLS has a name for. Those that a test of another file shows are listed in ELSEWHERE."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import pqtls
from pqtls import extensions as ext
from pqtls.certificates import Purpose, validate_chain
from pqtls.errors import Alert, CertificateRefused, DecodeError, NegotiationRefused, PeerError, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.framing import HandshakeType
from pqtls.messages import ClientHello
from pqtls.profiles import COMPAT, QBITEL
from pqtls.record import ContentType
from pqtls.signatures import MLDSA87
from pqtls.wire import uint16_list
from tests.support import pki
from tests.support.connections import scripted_client, scripted_server
from tests.support.recorded import record_handshake
from tests.support.resumption import Mesh
from tests.support.scripted_peer import ScriptedServer, forged_chain, plain_record, refused, replaced
from tests.support.toward_client import before_certificate as before_servers_certificate
from tests.support.toward_server import before_certificate, before_client_hello, before_finished, before_verify

# What is shown elsewhere: file and name of the test.
ELSEWHERE = {
    "downgrade of version, by the sentinel": ("test_client.py", "a_downgrade_is_seen_by_the_servers_random"),
    "replayed ClientHello": ("test_resumption.py", "a_replayed_hello_is_not_resumed_and_completes_nothing"),
    "replayed ticket": ("test_resumption.py", "a_ticket_that_was_used_costs_a_full_handshake"),
    "empty certificate list of a server": (
        "test_client_authentication.py",
        "a_server_without_a_certificate_is_a_decode_error",
    ),
    "empty certificate list of a client": (
        "test_server_authentication.py",
        "a_client_without_a_certificate_is_told_that_one_is_required",
    ),
    "another trust domain": ("test_server_authentication.py", "an_identity_that_the_owner_refuses_is_denied"),
    "two URIs, or no name": ("test_certificates.py", "a_leaf_without_exactly_one_uri_has_no_identity"),
    "wrong key usage": ("test_certificates.py", "a_leaf_that_may_not_sign_handshakes_is_refused"),
    "wrong extended key usage": ("test_certificates.py", "a_certificate_for_the_other_role_alone_is_refused"),
    "expired at the second": ("test_certificates.py", "a_second_after_its_end_a_certificate_is_expired"),
    "not yet valid at the second": (
        "test_certificates.py",
        "a_second_before_its_beginning_a_certificate_is_not_yet_valid",
    ),
    "a path beyond the limit": ("test_certificates.py", "three_intermediates_are_one_too_many"),
    "X25519 that gives zero": ("test_server_hello.py", "an_x25519_point_of_small_order_is_an_illegal_parameter"),
    "ML-KEM key beyond the modulus": (
        "test_server_hello.py",
        "a_kem_key_that_fails_the_modulus_check_is_an_illegal_parameter",
    ),
    "records of size zero": ("test_hostile_floods.py", "empty_records_without_end_are_refused"),
    "records of 16385 bytes": ("test_connection.py", "a_plain_record_that_is_too_long_is_a_record_overflow"),
    "protected records of 16385 bytes of content": (
        "test_record.py",
        "inner_plaintext_of_2_to_14_plus_1_bytes_is_the_longest_padding_included",
    ),
    "warnings without end": ("test_hostile_floods.py", "warnings_without_end_are_refused"),
    "TLS 1.2 hello": ("test_server_hello.py", "a_hello_of_tls_1_2_without_extensions_is_refused_by_its_version"),
    "HTTP in place of a hello": ("test_connection.py", "a_stranger_who_speaks_no_tls_is_told_apart"),
}


@pytest.mark.parametrize("attack", ELSEWHERE)
def test_an_attack_that_is_said_to_be_shown_elsewhere_is(attack: str) -> None:
    file, name = ELSEWHERE[attack]
    tree = ast.parse((Path(__file__).parent / file).read_text())
    assert f"test_{name}" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_file_that_the_list_of_threats_names_is_there() -> None:
    project = Path(__file__).parents[2]
    threats = (project / "docs" / "threats.md").read_text()
    named = re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py)`", threats)
    assert len(named) >= 20
    there = {path.name for path in (project / "tests").rglob("test_*.py")}
    for file in named:
        assert (project / file).is_file() if "/" in file else file in there, file


# -- downgrades by somebody on the path -----------------------------------------------------------------------------


def _attacked(
    client: pqtls.ClientConnection, server: pqtls.ServerConnection, rewrite: Callable[[ClientHello], ClientHello]
) -> PeerError:
    """Carry everything, but rewrite each ClientHello; return the failure that must come of it."""
    try:
        for _ in range(4):
            data = client.data_to_send()
            if data and data[0] == ContentType.HANDSHAKE:
                hello = ClientHello.parse(data[9:])
                data = plain_record(ContentType.HANDSHAKE, rewrite(hello).encode())
            server.receive_data(data)
            client.receive_data(server.data_to_send())
    except PeerError as error:
        assert not client.handshake_complete
        assert not server.handshake_complete
        assert client.events() == server.events() == []
        return error
    raise AssertionError("the attack was not noticed")


def test_a_group_that_is_taken_out_of_the_hello_is_missed_before_anything_is_complete() -> None:
    profiles = (QBITEL, COMPAT)
    weak = COMPAT.groups[0].code_point

    def rewrite(hello: ClientHello) -> ClientHello:
        shares = ext.read_client_key_shares(hello.extensions[ExtensionType.KEY_SHARE])
        kept = ext.write_client_key_shares(tuple(share for share in shares if share.group == weak))
        extensions = replaced(hello.extensions, supported_groups=uint16_list((weak,)), key_share=kept)
        return replace(hello, extensions=extensions)

    client = pqtls.ClientConnection(pki.client_config(profiles=profiles))
    server = pqtls.ServerConnection(pki.server_config(profiles=profiles))
    # The server did fall for it; but the hellos are part of every key.
    assert _attacked(client, server, rewrite).alert is Alert.BAD_RECORD_MAC


def test_a_signature_scheme_that_is_taken_out_of_the_hello_is_missed_before_anything_is_complete() -> None:
    classical = pki.make_certificate(
        issuer=pki.root(),
        subject="classical",
        key=ec.generate_private_key(ec.SECP384R1()),
        names=(pki.uri(pki.identity("classical")),),
    )

    def rewrite(hello: ClientHello) -> ClientHello:
        return replace(hello, extensions=replaced(hello.extensions, signature_algorithms=uint16_list((0x0503,))))

    client = pqtls.ClientConnection(pki.client_config(profiles=(COMPAT,)))
    server = pqtls.ServerConnection(pki.server_config(profiles=(COMPAT,), credential=pki.credential(classical)))
    assert _attacked(client, server, rewrite).alert is Alert.BAD_RECORD_MAC


def test_a_version_that_is_taken_out_of_the_hello_leaves_nothing_to_speak() -> None:
    def rewrite(hello: ClientHello) -> ClientHello:
        return replace(hello, extensions=replaced(hello.extensions, supported_versions=None))

    client = pqtls.ClientConnection(pki.client_config())
    error = _attacked(client, pqtls.ServerConnection(pki.server_config()), rewrite)
    assert isinstance(error, NegotiationRefused)
    assert error.alert is Alert.PROTOCOL_VERSION


def test_a_ticket_that_is_taken_out_of_the_hello_is_missed_too() -> None:
    mesh = Mesh()

    def rewrite(hello: ClientHello) -> ClientHello:
        return replace(hello, extensions=replaced(hello.extensions, pre_shared_key=None))

    client = pqtls.ClientConnection(mesh.client(mesh.session()))
    error = _attacked(client, pqtls.ServerConnection(mesh.server()), rewrite)
    assert error.alert is Alert.BAD_RECORD_MAC


# -- messages of other handshakes -----------------------------------------------------------------------------------


def test_a_finished_of_another_transcript_is_a_decrypt_error() -> None:
    other = record_handshake("other transcript")
    client = before_finished()
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
        client.send(other.client_messages[-1])


@pytest.mark.parametrize("what", ["client", "server"])
def test_a_handshake_that_is_reflected_to_its_sender_completes_nothing(what: str) -> None:
    victim: pqtls.Connection
    if what == "client":
        victim = pqtls.ClientConnection(pki.client_config())
    else:
        victim = pqtls.ServerConnection(pki.server_config())
        victim.receive_data(pqtls.ClientConnection(pki.client_config()).data_to_send())
    with pytest.raises(ProtocolViolation) as caught:
        victim.receive_data(victim.data_to_send())
    assert caught.value.alert in (Alert.UNEXPECTED_MESSAGE, Alert.BAD_RECORD_MAC)
    assert not victim.handshake_complete


def test_the_messages_of_the_server_itself_are_no_authentication_of_a_client() -> None:
    client = before_certificate()
    certificate, verify = client.messages[3:5]
    client.send(certificate.raw)
    with refused(client, ProtocolViolation, Alert.DECRYPT_ERROR):
        client.send(verify.raw)


def test_a_proof_that_a_client_gave_to_an_attacker_proves_nothing_to_another_server() -> None:
    """Identity misbinding: Mallory, a rightful member, passes on to a server what the client said to him."""
    mallory = ScriptedServer(pqtls.ClientConnection(pki.client_config()))
    mallory.finish_handshake(pki.credential(pki.leaf("mallory")))
    given = {message.type: message.raw for message in mallory.messages}
    toward_server = before_certificate()
    toward_server.send(given[HandshakeType.CERTIFICATE])
    with refused(toward_server, ProtocolViolation, Alert.DECRYPT_ERROR):
        toward_server.send(given[HandshakeType.CERTIFICATE_VERIFY])


def test_the_identity_that_a_client_sees_is_that_of_whoever_signed_and_nobody_elses() -> None:
    server = before_servers_certificate()
    server.send(forged_chain(pki.leaf("server").der))
    with refused(server, ProtocolViolation, Alert.DECRYPT_ERROR):
        server.send(server.certificate_verify(pki.credential(pki.leaf("mallory"))))


# -- certificates ---------------------------------------------------------------------------------------------------


def test_a_certificate_of_no_bytes_is_a_decode_error_on_both_sides() -> None:
    server = before_servers_certificate()
    with refused(server, DecodeError, Alert.DECODE_ERROR):
        server.send(forged_chain(b""))
    client = before_certificate()
    with refused(client, DecodeError, Alert.DECODE_ERROR):
        client.send(forged_chain(pki.leaf("client").der, b""))


@pytest.mark.parametrize("names", [(), (x509.DNSName("*.default.svc"),), (x509.DNSName("server.default.svc"),)])
def test_a_wildcard_or_a_dns_name_is_no_identity(names: tuple[x509.GeneralName, ...]) -> None:
    leaf = pki.make_certificate(issuer=pki.root(), subject="wild", names=names)
    with pytest.raises(CertificateRefused) as caught:
        validate_chain((leaf.der,), pki.trust(), Purpose.SERVER, pki.NOW, (MLDSA87,))
    assert caught.value.alert is Alert.BAD_CERTIFICATE


def test_an_identity_with_a_wildcard_in_it_is_only_itself() -> None:
    text = "spiffe://cluster.local/ns/*/sa/*"
    leaf = pki.make_certificate(issuer=pki.root(), subject="wild", names=(pki.uri(text),))
    found = validate_chain((leaf.der,), pki.trust(), Purpose.SERVER, pki.NOW, (MLDSA87,))
    assert found.identity == text


# -- renegotiation, and hellos that are too large -------------------------------------------------------------------


def test_renegotiation_does_not_exist_for_a_server() -> None:
    client = scripted_client(complete=True)
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE) as caught:
        client.say(ContentType.HANDSHAKE, client.client_hello().encode())
    assert str(caught.value) == "client_hello after the handshake"


def test_renegotiation_does_not_exist_for_a_client() -> None:
    server = scripted_server(complete=True)
    with refused(server, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        server.say(ContentType.HANDSHAKE, bytes(4))  # HelloRequest of TLS 1.2


def test_a_hello_in_the_middle_of_a_handshake_is_an_unexpected_message() -> None:
    client = before_verify()
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        client.send(client.client_hello().encode())


def test_a_hello_of_64_kib_and_more_is_refused_by_its_header_and_kept_nowhere() -> None:
    for length in (2**15 + 1, 2**16, 2**24 - 1):
        client = before_client_hello()
        with refused(client, DecodeError, Alert.DECODE_ERROR):
            client.say(ContentType.HANDSHAKE, b"\x01" + length.to_bytes(3, "big"))
    client = before_client_hello()
    client.say(ContentType.HANDSHAKE, b"\x01" + (2**15).to_bytes(3, "big"))
    assert not client.connection.has_data_to_send
