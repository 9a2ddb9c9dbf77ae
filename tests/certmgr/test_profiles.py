"""What a root and a leaf say, extension by extension."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey, MLDSA87PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from certmgr import profiles

USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)
SPIFFE = x509.UniformResourceIdentifier("spiffe://example.org/web")


@pytest.fixture(scope="module")
def public_key() -> MLDSA87PublicKey:
    return MLDSA87PrivateKey.generate().public_key()


def by_oid(extensions: tuple[profiles.ProfiledExtension, ...]) -> dict[x509.ObjectIdentifier, Any]:
    found = {extension.value.oid: extension for extension in extensions}
    assert len(found) == len(extensions)
    return found


def usages(value: x509.KeyUsage) -> set[str]:
    return {usage for usage in USAGES if getattr(value, usage)}


def test_a_root_says_that_it_may_sign_certificates_and_crls_and_nothing_else(
    public_key: MLDSA87PublicKey,
) -> None:
    found = by_oid(profiles.root_extensions(public_key))

    assert set(found) == {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
    constraints = found[ExtensionOID.BASIC_CONSTRAINTS]
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=1)
    usage = found[ExtensionOID.KEY_USAGE]
    assert usage.critical
    assert usages(usage.value) == {"key_cert_sign", "crl_sign"}
    assert not found[ExtensionOID.SUBJECT_KEY_IDENTIFIER].critical


def test_an_intermediate_says_what_a_root_does_but_allows_no_authority_below(public_key: MLDSA87PublicKey) -> None:
    issuer = x509.SubjectKeyIdentifier(b"i" * 20)
    found = by_oid(profiles.intermediate_extensions(public_key, issuer))
    roots = by_oid(profiles.root_extensions(public_key))

    assert set(found) == {*roots, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
    constraints = found[ExtensionOID.BASIC_CONSTRAINTS]
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert found[ExtensionOID.KEY_USAGE] == roots[ExtensionOID.KEY_USAGE]
    assert found[ExtensionOID.AUTHORITY_KEY_IDENTIFIER].value == x509.AuthorityKeyIdentifier(issuer.digest, None, None)


def test_a_leaf_says_that_it_signs_handshakes_in_both_roles_and_is_no_authority(
    public_key: MLDSA87PublicKey,
) -> None:
    issuer = x509.SubjectKeyIdentifier(b"i" * 20)
    names = [SPIFFE, x509.DNSName("web.shop")]
    found = by_oid(profiles.workload_extensions(public_key, issuer, names, subject_is_empty=True))

    assert set(found) == {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
    constraints = found[ExtensionOID.BASIC_CONSTRAINTS]
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=False, path_length=None)
    usage = found[ExtensionOID.KEY_USAGE]
    assert usage.critical
    assert usages(usage.value) == {"digital_signature"}
    extended = found[ExtensionOID.EXTENDED_KEY_USAGE]
    assert not extended.critical
    assert list(extended.value) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert list(found[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value) == names
    authority = found[ExtensionOID.AUTHORITY_KEY_IDENTIFIER]
    assert not authority.critical
    assert authority.value == x509.AuthorityKeyIdentifier(issuer.digest, None, None)


@pytest.mark.parametrize("empty", [True, False])
def test_the_alternative_names_are_critical_exactly_when_the_subject_is_empty(
    public_key: MLDSA87PublicKey, empty: bool
) -> None:
    issuer = x509.SubjectKeyIdentifier(b"i" * 20)
    found = by_oid(profiles.workload_extensions(public_key, issuer, [SPIFFE], subject_is_empty=empty))

    assert found[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].critical is empty


def test_a_key_identifier_is_the_first_160_bits_of_the_sha256_of_the_key(
    public_key: MLDSA87PublicKey,
) -> None:
    digest = profiles.key_identifier(public_key).digest

    assert len(digest) == 20
    assert hashlib.sha256(public_key.public_bytes_raw()).digest().startswith(digest)


def test_a_root_lasts_ten_years_and_a_leaf_a_day() -> None:
    start = datetime.date(2026, 1, 1)

    assert start + profiles.ROOT_VALIDITY == datetime.date(2036, 1, 1)
    assert datetime.timedelta(days=1) == profiles.WORKLOAD_VALIDITY
    assert datetime.timedelta(minutes=5) == profiles.BACKDATE
