"""Reading certificates so that nothing in them surprises later."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from pqtls.certificates import Purpose, validate_chain
from pqtls.errors import Alert, CertificateRefused, ConfigurationError
from pqtls.signatures import MLDSA87
from pqtls.x509_reading import (
    PATH_ID_SIZE,
    UNREADABLE,
    display_name,
    key_type,
    load_certificates,
    parse_certificate,
    path_id,
    uris,
)
from tests.support import pki


def test_a_peers_certificate_is_read_with_all_its_parts() -> None:
    assert parse_certificate(pki.leaf("server").der) == pki.leaf("server").certificate


def test_a_certificate_cut_anywhere_or_with_more_behind_it_is_unreadable() -> None:
    der = pki.leaf("server").der
    for length in (*range(0, len(der), 61), len(der) - 1):
        with pytest.raises(UNREADABLE):
            parse_certificate(der[:length])
    with pytest.raises(UNREADABLE):
        parse_certificate(der + b"\0")


def test_a_damaged_certificate_is_unreadable_or_another_but_never_another_error() -> None:
    der = pki.leaf("server").der
    readable = 0
    for place in range(0, 220):
        for pattern in (0x01, 0x20, 0xFF):
            damaged = der[:place] + bytes((der[place] ^ pattern,)) + der[place + 1 :]
            try:
                certificate = parse_certificate(damaged)
            except UNREADABLE:
                continue
            readable += 1
            assert certificate != pki.leaf("server").certificate
    assert readable


def test_a_serial_number_that_is_negative_is_unreadable() -> None:
    der = pki.leaf("server").der
    number = pki.leaf("server").certificate.serial_number
    size = (number.bit_length() + 8) // 8
    encoded = number.to_bytes(size, "big", signed=True)
    assert der.count(encoded) == 1
    with pytest.raises(UNREADABLE):
        parse_certificate(der.replace(encoded, b"\x80" + encoded[1:]))


def test_a_file_of_ours_may_hold_several_certificates_and_text_between_them() -> None:
    pem = b"a comment\n" + pki.leaf("server").certificate_pem + b"\nanother\n" + pki.root().certificate_pem
    assert load_certificates(pem, "the file") == [pki.leaf("server").certificate, pki.root().certificate]


@pytest.mark.parametrize(
    ("pem", "text"),
    [
        (b"", "the file holds no PEM certificate"),
        (pki.leaf("server").der, "the file holds no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "the file cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\n", "the file cannot be read"),
    ],
    ids=["empty", "DER", "nonsense", "cut"],
)
def test_a_file_of_ours_that_holds_none_is_a_configuration_error_that_names_it(pem: bytes, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        load_certificates(pem, "the file")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (mldsa.MLDSA87PrivateKey.generate, "ML-DSA-87"),
        (mldsa.MLDSA65PrivateKey.generate, "MLDSA65"),
        (lambda: ec.generate_private_key(ec.SECP256R1()), "P-256"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "P-384"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), "secp521r1"),
        (ed25519.Ed25519PrivateKey.generate, "Ed25519"),
        (lambda: rsa.generate_private_key(65537, 2048), "RSA"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_key_is_called_what_signature_schemes_call_it(make: Any, name: str) -> None:
    key = make()
    assert key_type(key) == key_type(key.public_key()) == name


def test_only_uris_among_the_names_are_uris() -> None:
    names = (pki.uri("spiffe://a/b"), x509.DNSName("a.example"), pki.uri("https://c"))
    both = pki.make_certificate(issuer=pki.root(), subject="both", names=names)
    assert uris(both.certificate) == ["spiffe://a/b", "https://c"]
    assert uris(pki.root().certificate) == []


def test_a_certificate_is_called_by_its_uri_or_subject_or_serial_number() -> None:
    assert display_name(pki.leaf("server").certificate) == pki.identity("server")
    assert display_name(pki.root().certificate) == "CN=QBITEL Test Root"


def test_an_identifier_stands_for_issuer_and_serial_number() -> None:
    one, other = pki.root().certificate.subject, pki.root("Another Root").certificate.subject
    found = {path_id(one, 5), path_id(one, 6), path_id(other, 5), path_id(one, -5), path_id(one, 2**159)}
    assert len(found) == 5
    assert {len(identifier) for identifier in found} == {PATH_ID_SIZE}
    assert path_id(one, 5) == path_id(one, 5)


def _with_extension(value: bytes, *, critical: bool) -> bytes:
    leaf = pki.leaf("server")
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), value)
    builder = x509.CertificateBuilder(
        issuer_name=pki.root().certificate.subject,
        subject_name=leaf.certificate.subject,
        public_key=leaf.key.public_key(),
        serial_number=77,
        not_valid_before=leaf.certificate.not_valid_before_utc,
        not_valid_after=leaf.certificate.not_valid_after_utc,
    )
    for extension in leaf.certificate.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    certificate = builder.add_extension(unknown, critical=critical).sign(pki.root().key, None)
    return certificate.public_bytes(Encoding.DER)


def test_a_leaf_with_an_unknown_critical_extension_is_refused_and_one_with_an_uncritical_one_is_not() -> None:
    def validate(der: bytes) -> str:
        return validate_chain((der,), pki.trust(), Purpose.SERVER, pki.NOW, (MLDSA87,)).identity

    assert validate(_with_extension(b"\x05\x00", critical=False)) == pki.identity("server")
    with pytest.raises(CertificateRefused) as caught:
        validate(_with_extension(b"\x05\x00", critical=True))
    assert caught.value.alert in (Alert.BAD_CERTIFICATE, Alert.UNSUPPORTED_CERTIFICATE)
