"""Credentials, roots, and every way in which a peer's chain is refused."""

from __future__ import annotations

import datetime
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from pqtls.certificates import MAX_CERTIFICATES, Credential, Purpose, TrustAnchors, key_type, validate_chain
from pqtls.certificates import ValidatedChain as Validated
from pqtls.errors import Alert, CertificateRefused, ConfigurationError
from pqtls.signatures import ECDSA_SECP256R1_SHA256, ECDSA_SECP384R1_SHA384, MLDSA87, SignatureScheme
from pqtls.x509_reading import path_id
from tests.support import pki
from tests.support.pki import DAY, NOW, Issued, make_certificate, root, trust, uri

SECOND = datetime.timedelta(seconds=1)
_URI = "spiffe://cluster.local/ns/default/sa/test"


@cache
def _key(kind: str) -> Any:
    match kind:
        case "RSA":
            return rsa.generate_private_key(65537, 2048)
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "secp521r1":
            return ec.generate_private_key(ec.SECP521R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "MLDSA65":
            return mldsa.MLDSA65PrivateKey.generate()
    return mldsa.MLDSA87PrivateKey.generate()


def _leaf(issuer: Issued | None = None, **changes: Any) -> Issued:
    values: dict[str, Any] = {"issuer": issuer or root(), "subject": "test", "names": (uri(_URI),)}
    return make_certificate(**(values | changes))


def _intermediate(name: str = "Intermediate", issuer: Issued | None = None, **changes: Any) -> Issued:
    values: dict[str, Any] = {"issuer": issuer or root(), "subject": name, "is_ca": True, "path_length": 0}
    return make_certificate(**(values | changes))


def _validate(
    *chain: Issued | bytes,
    purpose: Purpose = Purpose.SERVER,
    now: datetime.datetime = NOW,
    roots: TrustAnchors | None = None,
    schemes: tuple[SignatureScheme, ...] = (MLDSA87,),
) -> Validated:
    ders = tuple(one if isinstance(one, bytes) else one.der for one in chain)
    return validate_chain(ders, roots or trust(), purpose, now, schemes)


def _refused(alert: Alert, reason: str, *chain: Issued | bytes, **changes: Any) -> str:
    with pytest.raises(CertificateRefused) as caught:
        _validate(*chain, **changes)
    assert (caught.value.alert, caught.value.reason) == (alert, reason)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is taken --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", Purpose)
def test_a_right_leaf_under_a_trusted_root_is_taken_with_its_identity(purpose: Purpose) -> None:
    leaf = pki.leaf("server")
    found = _validate(leaf, purpose=purpose)
    assert found == Validated(
        public_key=leaf.certificate.public_key(),
        key_type="ML-DSA-87",
        identity=pki.identity("server"),
        path_ids=(path_id(root().certificate.subject, leaf.certificate.serial_number),),
        valid_from=NOW - DAY,
        valid_until=NOW + DAY,
    )


def test_an_intermediate_that_the_peer_sends_is_used() -> None:
    between = _intermediate()
    assert _validate(_leaf(between), between).identity == _URI


def test_a_root_that_the_peer_appends_changes_nothing() -> None:
    between = _intermediate()
    assert _validate(_leaf(), root()).identity == _URI
    assert _validate(_leaf(between), between, root()).identity == _URI


def test_any_of_several_roots_will_do() -> None:
    both = trust(root("Old Root"), root())
    assert _validate(pki.leaf("server"), roots=both).identity == pki.identity("server")
    assert _validate(pki.leaf("server", "Old Root"), roots=both).identity == pki.identity("server")


def test_dns_names_beside_the_one_uri_are_taken() -> None:
    assert _validate(_leaf(names=(x509.DNSName("web.example"), uri(_URI)))).identity == _URI


# -- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [NOW - DAY, NOW + DAY])
def test_both_ends_of_the_validity_are_within_it(now: datetime.datetime) -> None:
    assert _validate(_leaf(issuer=_long_lived()), now=now, roots=trust(_long_lived())).identity == _URI


@cache
def _long_lived() -> Issued:
    return make_certificate(
        issuer=None, subject="Long", is_ca=True, path_length=1, not_before=NOW - 9 * DAY, not_after=NOW + 9 * DAY
    )


def test_a_second_after_its_end_a_certificate_is_expired() -> None:
    text = _refused(
        Alert.CERTIFICATE_EXPIRED, "expired", _leaf(_long_lived()), now=NOW + DAY + SECOND, roots=trust(_long_lived())
    )
    assert text == (
        f"the peer's certificate {_URI} expired at 2026-06-02T12:00:00Z; our clock says 2026-06-02T12:00:01Z"
    )


def test_a_second_before_its_beginning_a_certificate_is_not_yet_valid() -> None:
    text = _refused(
        Alert.CERTIFICATE_EXPIRED,
        "not_yet_valid",
        _leaf(_long_lived()),
        now=NOW - DAY - SECOND,
        roots=trust(_long_lived()),
    )
    assert "is not valid before 2026-05-31T12:00:00Z; our clock says 2026-05-31T11:59:59Z" in text


def test_an_expired_intermediate_is_said_to_be_expired() -> None:
    between = _intermediate(not_after=NOW - SECOND)
    assert "CN=Intermediate expired" in _refused(Alert.CERTIFICATE_EXPIRED, "expired", _leaf(between), between)


def test_an_expired_root_vouches_for_nobody() -> None:
    old = make_certificate(issuer=None, subject="Old", is_ca=True, path_length=1, not_after=NOW - SECOND)
    _refused(Alert.BAD_CERTIFICATE, "bad_certificate", _leaf(old), roots=trust(old))


# -- path -----------------------------------------------------------------------------------------------------------


def test_a_leaf_of_another_root_is_of_an_unknown_authority() -> None:
    text = _refused(Alert.UNKNOWN_CA, "unknown_root", pki.leaf("server", "Other Root"))
    assert "was issued by CN=Other Root, and no root that we trust made it" in text


def test_a_root_of_the_same_name_is_another_root() -> None:
    twin = make_certificate(issuer=None, subject="QBITEL Test Root", is_ca=True, path_length=1)
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(twin))


def test_a_root_that_the_peer_brings_along_is_not_trusted_for_it() -> None:
    _refused(Alert.UNKNOWN_CA, "unknown_root", pki.leaf("server", "Other Root"), root("Other Root"))


def test_a_chain_under_a_foreign_root_is_of_an_unknown_authority_whatever_of_it_the_peer_shows() -> None:
    foreign = _intermediate("Foreign Between", root("Other Root"))
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(foreign), foreign)
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(foreign), foreign, root("Other Root"))
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(foreign), foreign, _intermediate(), root())


def test_a_chain_under_a_foreign_root_of_our_roots_name_is_of_an_unknown_authority() -> None:
    twin = make_certificate(issuer=None, subject="QBITEL Test Root", is_ca=True, path_length=1)
    between = _intermediate("Twin Between", twin)
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(between), between)
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(between), between, twin)


def test_an_authority_of_another_name_with_our_roots_key_is_unknown() -> None:
    renamed = make_certificate(issuer=None, subject="Renamed", is_ca=True, path_length=1, key=root().key)
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(renamed))


def test_a_chain_that_goes_in_circles_is_of_an_unknown_authority() -> None:
    one = _intermediate("One", _intermediate("Two", root("Other Root")), path_length=None)
    two = _intermediate("Two", one, path_length=None)
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(one), one, two)


def test_without_key_identifiers_the_signature_says_whose_certificate_it_is() -> None:
    plain = make_certificate(issuer=None, subject="Plain", is_ca=True, path_length=1, key_identifiers=False)
    twin = make_certificate(issuer=None, subject="Plain", is_ca=True, path_length=1, key_identifiers=False)
    # `cryptography` wants a key identifier of every authority (RFC 5280 section 4.2.1.2): no such chain is good.
    _refused(
        Alert.BAD_CERTIFICATE, "bad_certificate", _leaf(plain, key_identifiers=False, purposes=()), roots=trust(plain)
    )
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(twin, key_identifiers=False), roots=trust(plain))


def test_a_damaged_signature_under_our_root_is_bad_and_not_unknown() -> None:
    between = _intermediate()
    for issuer, *others in ([root()], [between, between]):
        der = _leaf(issuer).der
        _refused(Alert.BAD_CERTIFICATE, "bad_certificate", der[:-1] + bytes([der[-1] ^ 1]), *others)


def test_a_leaf_that_signs_itself_is_refused() -> None:
    alone = make_certificate(issuer=None, subject="alone", names=(uri(_URI),))
    _refused(Alert.UNKNOWN_CA, "unknown_root", alone)


def test_a_missing_intermediate_makes_the_authority_unknown() -> None:
    _refused(Alert.UNKNOWN_CA, "unknown_root", _leaf(_intermediate()))


def test_a_leaf_cannot_act_as_an_issuer() -> None:
    impostor = _leaf(subject="impostor")
    _refused(Alert.BAD_CERTIFICATE, "bad_certificate", _leaf(impostor), impostor)


def test_an_authority_that_may_not_sign_certificates_is_refused() -> None:
    between = _intermediate(key_cert_sign=False)
    _refused(Alert.BAD_CERTIFICATE, "bad_certificate", _leaf(between), between)


def test_a_path_longer_than_an_authority_allows_is_refused() -> None:
    upper = _intermediate("Upper", path_length=0)
    lower = _intermediate("Lower", upper)
    _refused(Alert.BAD_CERTIFICATE, "bad_certificate", _leaf(lower), lower, upper)


def test_three_intermediates_are_one_too_many() -> None:
    top = make_certificate(issuer=None, subject="Deep", is_ca=True, path_length=None)
    tiers = [top]
    for number in range(3):
        tiers.append(_intermediate(f"Tier {number}", tiers[-1], path_length=None))
    two = [_leaf(tiers[2]), tiers[2], tiers[1]]
    assert _validate(*two, roots=trust(top)).identity == _URI
    three = [_leaf(tiers[3]), tiers[3], tiers[2], tiers[1]]
    _refused(Alert.BAD_CERTIFICATE, "bad_certificate", *three, roots=trust(top))


def test_too_many_certificates_are_not_even_parsed() -> None:
    text = _refused(Alert.BAD_CERTIFICATE, "chain_too_long", *[b"junk"] * (MAX_CERTIFICATES + 1))
    assert f"sent {MAX_CERTIFICATES + 1} certificates" in text


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-384", "Ed25519", "MLDSA65"])
def test_a_leaf_with_another_key_under_our_root_is_unsupported(kind: str) -> None:
    # The path validation refuses some of them by itself, with its own words.
    with pytest.raises(CertificateRefused) as caught:
        _validate(_leaf(key=_key(kind)))
    assert (caught.value.alert, caught.value.reason) == (Alert.UNSUPPORTED_CERTIFICATE, "wrong_key_type")
    assert "the profile takes ML-DSA-87" in str(caught.value)


def test_a_strong_leaf_under_a_weaker_root_is_unsupported() -> None:
    weak = make_certificate(issuer=None, subject="Weak", is_ca=True, path_length=1, key=_key("P-384"))
    text = _refused(Alert.UNSUPPORTED_CERTIFICATE, "wrong_key_type", _leaf(weak), roots=trust(weak))
    assert "CN=Weak has a key of type P-384" in text


def test_a_profile_that_takes_p384_gets_it() -> None:
    schemes = (MLDSA87, ECDSA_SECP384R1_SHA384)
    assert _validate(_leaf(key=_key("P-384")), schemes=schemes).key_type == "P-384"
    text = _refused(Alert.UNSUPPORTED_CERTIFICATE, "wrong_key_type", _leaf(key=_key("P-256")), schemes=schemes)
    assert "takes ML-DSA-87 or P-384" in text


# -- usage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purpose", "other"),
    [(Purpose.SERVER, ExtendedKeyUsageOID.CLIENT_AUTH), (Purpose.CLIENT, ExtendedKeyUsageOID.SERVER_AUTH)],
)
def test_a_certificate_for_the_other_role_alone_is_refused(purpose: Purpose, other: Any) -> None:
    text = _refused(Alert.BAD_CERTIFICATE, "wrong_usage", _leaf(purposes=(other,)), purpose=purpose)
    assert f"is not for a TLS {purpose.name.lower()} (extendedKeyUsage)" in text


def test_a_certificate_without_a_purpose_is_refused() -> None:
    _refused(Alert.BAD_CERTIFICATE, "bad_certificate", _leaf(purposes=()))


def test_a_certificate_for_any_purpose_is_for_neither_role() -> None:
    anything = _leaf(purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,))
    _refused(Alert.BAD_CERTIFICATE, "wrong_usage", anything)


def test_a_leaf_that_may_not_sign_handshakes_is_refused() -> None:
    text = _refused(Alert.BAD_CERTIFICATE, "wrong_usage", _leaf(digital_signature=False, key_cert_sign=False))
    assert "not for signing handshakes (keyUsage)" in text


def test_a_leaf_that_may_sign_certificates_is_refused() -> None:
    with pytest.raises(CertificateRefused) as caught:
        _validate(_leaf(key_cert_sign=True))
    assert caught.value.alert is Alert.BAD_CERTIFICATE
    assert caught.value.reason in ("wrong_usage", "bad_certificate")


def test_a_leaf_that_may_sign_revocation_lists_is_refused() -> None:
    _refused(Alert.BAD_CERTIFICATE, "wrong_usage", _leaf(crl_sign=True))


def test_an_authoritys_own_certificate_is_no_leaf() -> None:
    with pytest.raises(CertificateRefused) as caught:
        _validate(_intermediate(names=(uri(_URI),)))
    assert caught.value.alert is Alert.BAD_CERTIFICATE


# -- identity -------------------------------------------------------------------------------------------------------


def test_a_leaf_without_names_is_refused() -> None:
    _refused(Alert.BAD_CERTIFICATE, "bad_certificate", _leaf(names=()))


@pytest.mark.parametrize(
    ("names", "count"), [((x509.DNSName("web.example"),), 0), ((uri("spiffe://a/b"), uri("spiffe://a/c")), 2)]
)
def test_a_leaf_without_exactly_one_uri_has_no_identity(names: tuple[x509.GeneralName, ...], count: int) -> None:
    text = _refused(Alert.BAD_CERTIFICATE, "no_identity", _leaf(names=names))
    assert f"has {count} URIs as subject alternative names, not exactly one" in text


# -- unreadable -----------------------------------------------------------------------------------------------------


def _patched(before: bytes, after: bytes) -> bytes:
    der = _leaf(subject="test").der
    assert der.count(before) == 1
    assert len(before) == len(after)
    return der.replace(before, after)


@pytest.mark.parametrize("der", [b"", b"\x30", b"junk", b"\x30\x03\x02\x01\x00"])
def test_bytes_that_are_no_certificate_are_unreadable(der: bytes) -> None:
    _refused(Alert.BAD_CERTIFICATE, "unreadable", der)
    _refused(Alert.BAD_CERTIFICATE, "unreadable", pki.leaf("server"), der)


def test_a_byte_behind_a_certificate_makes_it_unreadable() -> None:
    _refused(Alert.BAD_CERTIFICATE, "unreadable", pki.leaf("server").der + b"\0")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"),  # a version that X.509 does not have
        (b"\x0c\x04test", b"\x00\x04test"),  # a name of no type
        (b"\x0c\x04test", b"\x03\x04test"),  # a name that is a bit string
        (b"\x0c\x04test", b"\x0c\x04t\xffst"),  # a name that is not UTF-8
        (b"spiffe://", b"spiffe:\xff/"),  # a URI that is not ASCII
        (b"\x55\x1d\x11", b"\x55\x1d\x0f"),  # an extension twice
    ],
    ids=["version", "name of no type", "bit string", "not UTF-8", "not ASCII", "twice"],
)
def test_a_certificate_with_a_part_that_makes_no_sense_is_unreadable(before: bytes, after: bytes) -> None:
    _refused(Alert.BAD_CERTIFICATE, "unreadable", _patched(before, after))


def test_a_damaged_byte_anywhere_outside_the_signature_is_refused_and_nothing_else_happens() -> None:
    der = pki.leaf("server").der
    key = pki.leaf("server").certificate.public_key().public_bytes_raw()  # type: ignore[union-attr]
    start = der.index(key)
    # What precedes the key, and what follows it up to the signature.
    positions = [*range(start), *range(start + len(key), len(der) - 4627 - 4)]
    for position in positions:
        damaged = bytearray(der)
        damaged[position] ^= 0x04
        with pytest.raises(CertificateRefused):
            _validate(bytes(damaged))


# -- our own --------------------------------------------------------------------------------------------------------


def _refuses(certificate: bytes, key: bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Credential.from_pem(certificate, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_credential_is_read_with_its_identity_and_its_end() -> None:
    between = _intermediate()
    mine = _leaf(between)
    credential = Credential.from_pem(mine.certificate_pem + between.certificate_pem, mine.key_pem)
    assert credential.chain == (mine.der, between.der)
    assert credential.signature_scheme is MLDSA87
    assert credential.identity == _URI
    assert credential.not_valid_after == NOW + DAY
    assert "private_key" not in repr(credential)


@pytest.mark.parametrize(("kind", "scheme"), [("P-384", ECDSA_SECP384R1_SHA384), ("P-256", ECDSA_SECP256R1_SHA256)])
def test_a_credentials_key_chooses_its_scheme(kind: str, scheme: SignatureScheme) -> None:
    assert pki.credential(_leaf(key=_key(kind))).signature_scheme is scheme


@pytest.mark.parametrize("names", [(), (uri("spiffe://a/b"), uri("spiffe://a/c")), (x509.DNSName("a"),)])
def test_a_credential_without_exactly_one_uri_has_no_identity(names: tuple[x509.GeneralName, ...]) -> None:
    assert pki.credential(_leaf(names=names)).identity is None


def test_a_key_of_another_certificate_is_refused() -> None:
    text = _refuses(pki.leaf("server").certificate_pem, pki.leaf("client").key_pem)
    assert text == "the private key does not belong to the first certificate of the file"


def test_a_chain_in_the_wrong_order_is_refused() -> None:
    mine = pki.leaf("server")
    assert "does not belong" in _refuses(root().certificate_pem + mine.certificate_pem, mine.key_pem)


def test_an_encrypted_key_is_refused() -> None:
    mine = _leaf(key=_key("P-384"))
    pem = mine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert "is encrypted: store it unencrypted" in _refuses(mine.certificate_pem, pem)


def test_a_file_without_a_certificate_is_refused() -> None:
    mine = pki.leaf("server")
    assert "the certificate file holds no PEM certificate" in _refuses(b"", mine.key_pem)
    assert "the certificate file holds no PEM certificate" in _refuses(mine.key_pem, mine.key_pem)


@pytest.mark.parametrize("body", [b"AAAA", b"!"])
def test_a_certificate_file_that_is_damaged_is_refused(body: bytes) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
    assert "the certificate file cannot be read" in _refuses(pem, pki.leaf("server").key_pem)


def test_a_certificate_file_with_an_unreadable_part_is_refused() -> None:
    from base64 import encodebytes

    der = _patched(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05")
    pem = b"-----BEGIN CERTIFICATE-----\n" + encodebytes(der) + b"-----END CERTIFICATE-----\n"
    assert "the certificate file cannot be read" in _refuses(pem, pki.leaf("server").key_pem)


@pytest.mark.parametrize("key", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_cannot_be_read_is_refused_with_a_hint_at_the_seed_form(key: bytes) -> None:
    text = _refuses(pki.leaf("server").certificate_pem, key)
    assert text.startswith("the private key cannot be read; ")
    assert "ml-dsa.output_formats=seed-only" in text


def test_an_ml_dsa_key_in_expanded_form_is_refused_with_the_same_hint() -> None:
    """draft-ietf-lamps-dilithium-certificates: an OCTET STRING of 4896 bytes where the seed form has [0]."""
    from base64 import encodebytes

    algorithm = bytes.fromhex("300b0609608648016503040313")  # id-ml-dsa-87
    expanded = b"\x04\x82\x13\x20" + bytes(4896)
    body = b"\x02\x01\x00" + algorithm + b"\x04\x82" + len(expanded).to_bytes(2, "big") + expanded
    der = b"\x30\x82" + len(body).to_bytes(2, "big") + body
    pem = b"-----BEGIN PRIVATE KEY-----\n" + encodebytes(der) + b"-----END PRIVATE KEY-----\n"
    assert "seed-only" in _refuses(pki.leaf("server").certificate_pem, pem)


@pytest.mark.parametrize("kind", ["RSA", "Ed25519", "MLDSA65", "secp521r1"])
def test_a_key_of_a_type_that_is_not_used_is_refused_by_its_name(kind: str) -> None:
    mine = _leaf(key=_key(kind))
    assert _refuses(mine.certificate_pem, mine.key_pem) == (
        f"a private key of type {kind} is not used here: make one of ML-DSA-87"
    )


def test_roots_are_read_from_one_file() -> None:
    assert len(trust(root(), root("Other Root")).roots) == 2
    with pytest.raises(ConfigurationError, match="the file of root certificates holds no PEM certificate"):
        TrustAnchors.from_pem(b"nothing")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("P-256", "P-256"), ("P-384", "P-384"), ("", "ML-DSA-87"), ("RSA", "RSA"), ("MLDSA65", "MLDSA65")],
)
def test_keys_are_named_alike_on_both_sides(kind: str, name: str) -> None:
    assert key_type(_key(kind)) == key_type(_key(kind).public_key()) == name


@pytest.mark.parametrize("order", [("server", "client"), ("client", "server"), ("server", "client", "client")])
def test_of_two_keys_the_one_that_belongs_to_the_certificate_is_taken(order: tuple[str, ...]) -> None:
    keys = b"".join(pki.leaf(name).key_pem for name in order)
    credential = Credential.from_pem(pki.leaf("server").certificate_pem, keys)
    assert credential.private_key.public_key() == pki.leaf("server").certificate.public_key()  # type: ignore[attr-defined]


def test_keys_of_which_none_belongs_or_one_is_damaged_are_refused() -> None:
    server, client = pki.leaf("server"), pki.leaf("client")
    for keys in (client.key_pem * 2, client.key_pem * 2 + server.key_pem):
        with pytest.raises(ConfigurationError, match="does not belong"):
            Credential.from_pem(server.certificate_pem, keys)
    damaged = client.key_pem.replace(b"\nM", b"\n!", 1)
    for keys in (server.key_pem + damaged, damaged + server.key_pem):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            Credential.from_pem(server.certificate_pem, keys)
