"""What is found in files of X.509, whoever wrote them, and that nothing in them is more than one clear error."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from certmgr.authority import CertificateAndKey
from certmgr.x509_files import (
    PrivateKey,
    PublicKey,
    certificates_of,
    deprecations_ignored,
    der_of,
    find,
    key_name,
    lists_of,
    pem_of,
)
from mesh.errors import UserError

_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER


def pkcs8(key: serialization.PrivateFormat | object, password: bytes = b"") -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, protection)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def csr(web: CertificateAndKey) -> x509.CertificateSigningRequest:
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(web.private_key, None)


@pytest.fixture(scope="module")
def crl(root: CertificateAndKey, now: datetime.datetime) -> x509.CertificateRevocationList:
    return (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.certificate.subject)
        .last_update(now)
        .next_update(now + datetime.timedelta(hours=1))
        .sign(root.private_key, None)
    )


def test_everything_in_a_pem_file_is_found_in_its_order(
    root: CertificateAndKey,
    web: CertificateAndKey,
    csr: x509.CertificateSigningRequest,
    crl: x509.CertificateRevocationList,
) -> None:
    content = b"\n".join(
        [b"a remark", web.certificate_pem, web.private_key_pem, csr.public_bytes(_PEM), pem_of([crl, root.certificate])]
    )

    found = find(content)
    assert [one.form for one in found] == ["PEM"] * 5
    assert found[0].thing == web.certificate
    assert found[1].thing == PrivateKey("ML-DSA-87")
    assert isinstance(found[2].thing, x509.CertificateSigningRequest)
    assert found[3].thing == crl
    assert certificates_of(content) == (web.certificate, root.certificate)
    assert lists_of(content) == (crl,)


def test_der_is_told_apart_by_what_it_holds(
    root: CertificateAndKey, csr: x509.CertificateSigningRequest, crl: x509.CertificateRevocationList
) -> None:
    (certificate,) = der_of([root.certificate])
    key = root.private_key.private_bytes(_DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = root.private_key.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    assert find(certificate)[0].thing == root.certificate
    assert find(crl.public_bytes(_DER))[0].thing == crl
    assert isinstance(find(csr.public_bytes(_DER))[0].thing, x509.CertificateSigningRequest)
    assert find(key)[0].thing == PrivateKey("ML-DSA-87")
    assert find(public)[0].thing == PublicKey("ML-DSA-87")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (MLKEM1024PrivateKey.generate, "ML-KEM-1024"),
        (ed25519.Ed25519PrivateKey.generate, "Ed25519"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "EC P-384"),
        (lambda: rsa.generate_private_key(65537, 2048), "RSA"),
    ],
)
def test_keys_are_called_what_people_call_them(make: object, name: str) -> None:
    key = make()  # type: ignore[operator]

    assert key_name(key) == key_name(key.public_key()) == name
    assert find(pkcs8(key))[0].thing == PrivateKey(name)


def test_a_key_that_cannot_be_read_is_still_known_as_one(root: CertificateAndKey) -> None:
    encrypted = pkcs8(root.private_key, b"a password")
    damaged = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"

    assert find(encrypted)[0].thing == PrivateKey("unknown", encrypted=True)
    assert find(damaged)[0].thing == PrivateKey("unreadable")


def test_the_parameters_in_front_of_an_ec_key_are_passed_over() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        _PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"

    assert [one.thing for one in find(parameters + key)] == [PrivateKey("EC P-256")]


def test_a_certificate_that_the_library_warns_of_is_found_all_the_same(now: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    good = (
        x509.CertificateBuilder(name, name, key.public_key(), 0x11223344, now, now).sign(key, hashes.SHA256())
    ).public_bytes(_DER)
    negative = good.replace(bytes.fromhex("020411223344"), bytes.fromhex("0204f1223344"))

    (one,) = certificates_of(negative)
    with deprecations_ignored():
        assert one.serial_number < 0


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "neither PEM"),
        (b"\x00" * 1000, "neither PEM"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB", "cut short"),
        (b"-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "cut short"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "block 1 (CERTIFICATE) cannot be read"),
        (b"-----BEGIN PGP MESSAGE-----\nMIIB\n-----END PGP MESSAGE-----\n", "a PGP MESSAGE"),
        (b"-----BEGIN X-----\n-----END X-----\n" * 1001, "1001 PEM blocks"),
    ],
)
def test_what_is_not_of_x509_is_one_clear_error(content: bytes, fault: str) -> None:
    with pytest.raises(UserError) as caught:
        find(content)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_what_was_asked_for_says_so(web: CertificateAndKey) -> None:
    with pytest.raises(UserError, match="holds no certificate"):
        certificates_of(web.private_key_pem)
    with pytest.raises(UserError, match="holds no revocation list"):
        lists_of(web.certificate_pem)


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda body: b"-----BEGIN X509 CRL-----" + body))
def test_any_bytes_are_found_or_refused(content: bytes) -> None:
    try:
        assert find(content)
    except UserError as error:
        assert str(error).isprintable()
