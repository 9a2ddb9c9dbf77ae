"""Certificates that an attacker, or a careless authority, could send: found by attacking the engine, kept as tests."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID

import pqtls
from pqtls import Alert, CertificateRefused, ConfigurationError
from pqtls.certificates import Purpose, validate_chain
from pqtls.signatures import MLDSA87
from pqtls.x509_reading import shown
from tests.support import pki
from tests.support.pki import DAY, NOW

FORGED_LINE = "x\n2026-06-01 12:00:00,000 INFO ready: forged \x1b[31m"


def validate(*chain: bytes, purpose: Purpose = Purpose.CLIENT, trust: pqtls.TrustAnchors | None = None) -> str:
    return validate_chain(chain, trust or pki.trust(), purpose, NOW, (MLDSA87,)).identity


@pytest.fixture(scope="module")
def stranger() -> pki.Issued:
    """A certificate that signs itself, with names that are meant for a log."""
    key = ec.generate_private_key(ec.SECP384R1())
    return pki.make_certificate(issuer=None, subject=FORGED_LINE[:60], key=key, names=(pki.uri(FORGED_LINE),))


def test_what_a_stranger_wrote_into_a_certificate_is_one_printable_line_in_our_error(stranger: pki.Issued) -> None:
    with pytest.raises(CertificateRefused) as caught:
        validate(stranger.der)
    assert str(caught.value).isprintable()
    assert "forged" in str(caught.value)


def test_a_huge_name_is_cut() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    huge = pki.make_certificate(issuer=None, subject="a", key=key, names=(pki.uri("https://" + "a" * 40_000),))
    with pytest.raises(CertificateRefused) as caught:
        validate(huge.der)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spiffe://a/b", "spiffe://a/b"),
        ("a\nb", "'a\\nb'"),
        ("\x1b[31m", "'\\x1b[31m'"),
        ("ü", "ü"),
        ("a" * 201, "a" * 200 + "…"),
    ],
)
def test_text_of_a_stranger_is_shown_bounded_and_printable(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize("year", [b"00000101000000Z", b"20550230000000Z"])
def test_a_time_that_no_calendar_has_is_unreadable_and_nothing_else(year: bytes) -> None:
    """GeneralizedTime allows the year 0; Python's calendar does not."""
    far = datetime.datetime(2060, 1, 1, tzinfo=datetime.UTC)
    der = pki.make_certificate(issuer=None, subject="a", names=(pki.uri("spiffe://a/b"),), not_after=far).der
    assert b"20600101000000Z" in der
    with pytest.raises(CertificateRefused) as caught:
        validate(der.replace(b"20600101000000Z", year))
    assert (caught.value.alert, caught.value.reason) == (Alert.BAD_CERTIFICATE, "unreadable")


def test_a_certificate_too_many_in_the_message_is_tolerated_even_when_it_expired() -> None:
    """RFC 8446 §4.4.2: be prepared for certificates that are not of the path."""
    other = pki.make_certificate(issuer=None, subject="old", is_ca=True, not_after=NOW - DAY / 2)
    assert validate(pki.leaf("client").der, other.der) == pki.identity("client")


@pytest.mark.parametrize("text", ["spiffe://cluster.local/ns/a/sa/b\x00c", "spiffe://cluster.local/ns/a/sa/b\n"])
def test_a_uri_with_control_characters_is_no_identity(text: str) -> None:
    leaf = pki.make_certificate(issuer=pki.root(), subject="a", names=(pki.uri(text),))
    with pytest.raises(CertificateRefused) as caught:
        validate(leaf.der)
    assert (caught.value.alert, caught.value.reason) == (Alert.BAD_CERTIFICATE, "no_identity")
    assert str(caught.value).isprintable()


def test_a_leaf_that_says_it_is_an_authority_is_refused() -> None:
    leaf = pki.make_certificate(
        issuer=pki.root(),
        subject="a",
        is_ca=True,
        crl_sign=False,
        authority_purposes=pki.BOTH_PURPOSES,
        names=(pki.uri(pki.identity("a")),),
        digital_signature=True,
        key_cert_sign=False,
    )
    with pytest.raises(CertificateRefused) as caught:
        validate(leaf.der)
    assert (caught.value.alert, caught.value.reason) == (Alert.BAD_CERTIFICATE, "wrong_usage")
    assert "authority" in str(caught.value)


@pytest.mark.parametrize(
    ("purposes", "role", "accepted"),
    [
        ((), Purpose.SERVER, True),
        ((), Purpose.CLIENT, True),
        (pki.BOTH_PURPOSES, Purpose.SERVER, True),
        (pki.BOTH_PURPOSES, Purpose.CLIENT, True),
        ((ExtendedKeyUsageOID.CLIENT_AUTH,), Purpose.CLIENT, True),
        ((ExtendedKeyUsageOID.CLIENT_AUTH,), Purpose.SERVER, False),
        ((ExtendedKeyUsageOID.SERVER_AUTH,), Purpose.CLIENT, False),
        ((ExtendedKeyUsageOID.CODE_SIGNING,), Purpose.SERVER, False),
    ],
)
def test_an_authority_that_is_limited_to_a_purpose_issues_for_no_other(
    purposes: tuple[x509.ObjectIdentifier, ...], role: Purpose, accepted: bool
) -> None:
    authority = pki.make_certificate(
        issuer=pki.root(), subject="intermediate", is_ca=True, path_length=0, authority_purposes=purposes
    )
    leaf = pki.make_certificate(issuer=authority, subject="a", names=(pki.uri(pki.identity("a")),))
    if accepted:
        assert validate(leaf.der, authority.der, purpose=role) == pki.identity("a")
        return
    with pytest.raises(CertificateRefused):
        validate(leaf.der, authority.der, purpose=role)


def revocation_list(authority: pki.Issued, issuer: x509.Name, serial: int) -> bytes:
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()
    builder = x509.CertificateRevocationListBuilder(issuer, NOW - DAY, NOW + DAY, revoked_certificates=[entry])
    return builder.sign(authority.key, None).public_bytes(Encoding.PEM)


def test_a_list_that_spells_its_issuer_in_another_string_type_revokes_all_the_same() -> None:
    authority, leaf = pki.root(), pki.leaf("client")
    name = authority.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    other = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name, _type=_ASN1Type.PrintableString)])
    assert other.public_bytes() != authority.certificate.subject.public_bytes()
    crl = revocation_list(authority, other, leaf.certificate.serial_number)
    trust = pqtls.TrustAnchors.from_pem(authority.certificate_pem, crls=crl)
    with pytest.raises(CertificateRefused) as caught:
        validate(leaf.der, trust=trust)
    assert caught.value.alert is Alert.CERTIFICATE_REVOKED


def test_a_file_of_lists_that_is_cut_short_is_refused_whole() -> None:
    authority = pki.root()
    crl = revocation_list(authority, authority.certificate.subject, 1)
    with pytest.raises(ConfigurationError, match="cut short"):
        pqtls.TrustAnchors.from_pem(authority.certificate_pem, crls=crl + crl[:-30])


def test_a_file_of_roots_that_is_cut_short_is_refused_whole() -> None:
    pem = pki.root().certificate_pem
    with pytest.raises(ConfigurationError):
        pqtls.TrustAnchors.from_pem(pem + pem[:-30])


@pytest.mark.parametrize(("size", "kept"), [(20 * 1024, 1), (20 * 1024 + 1, 0), (65_400, 0)])
def test_a_ticket_that_is_too_large_to_be_offered_is_dropped(size: int, kept: int) -> None:
    client, server = pki.connected()
    ticket = pqtls.messages.NewSessionTicket(3600, 0, b"n", bytes(size), {})
    server.effects.send(ticket.encode())
    server.effects.flush()
    pki.pump(client, server)
    sessions = [event.session for event in client.events() if isinstance(event, pqtls.SessionReceived)]
    assert len(sessions) == kept
    pqtls.ClientConnection(pki.client_config(sessions=tuple(sessions)))
