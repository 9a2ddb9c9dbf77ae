"""Requests for certificates: what may be repeated in them, and everything else, which is refused with its reason."""

from __future__ import annotations

import base64
import functools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from certmgr.proofs import Method, ProvenIdentity, Reason, Refused
from certmgr.requests import MAX_REQUEST_SIZE, check_csr
from mesh.spiffe import SpiffeId

WEB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")
PROVEN = ProvenIdentity(spiffe_id=WEB, method=Method.TOKEN, dns_names=("web.shop.svc",))
NOBODY = x509.Name([])
USAGE = dict.fromkeys(
    (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


@functools.cache
def key() -> MLDSA87PrivateKey:
    return MLDSA87PrivateKey.generate()


def builder(*extensions: x509.ExtensionType, subject: x509.Name = NOBODY) -> x509.CertificateSigningRequestBuilder:
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        made = made.add_extension(extension, critical=False)
    return made


def request(*extensions: x509.ExtensionType, subject: x509.Name = NOBODY) -> bytes:
    return builder(*extensions, subject=subject).sign(key(), None).public_bytes(Encoding.PEM)


@functools.cache
def plain() -> bytes:
    return request(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(WEB))]))


def reason(pem: bytes) -> Reason:
    with pytest.raises(Refused) as refused:
        check_csr(pem, PROVEN)
    assert refused.value.identity == WEB
    return refused.value.reason


def names(*general: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(general)


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (names(x509.UniformResourceIdentifier(str(WEB)), x509.DNSName("WEB.shop.svc")),),
        (x509.BasicConstraints(ca=False, path_length=None),),
        (x509.KeyUsage(digital_signature=True, **USAGE),),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),),
    ],
)
def test_a_request_may_repeat_what_it_gets_anyway(extensions: tuple[x509.ExtensionType, ...]) -> None:
    checked = check_csr(request(*extensions), PROVEN)

    assert checked.public_key.public_bytes_raw() == key().public_key().public_bytes_raw()


@pytest.mark.parametrize(
    "extension",
    [
        names(x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/db")),
        names(x509.UniformResourceIdentifier(str(WEB)), x509.DNSName("db.shop.svc")),
        names(x509.RFC822Name(str(WEB))),
        names(x509.DirectoryName(NOBODY)),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.KeyUsage(digital_signature=True, **{**USAGE, "key_cert_sign": True}),
        x509.KeyUsage(digital_signature=True, **{**USAGE, "crl_sign": True}),
        x509.KeyUsage(digital_signature=True, **{**USAGE, "key_encipherment": True}),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.OCSP_SIGNING]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        x509.NameConstraints([x509.DNSName("a")], None),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ],
)
def test_a_request_for_anything_else_is_refused_and_not_trimmed(extension: x509.ExtensionType) -> None:
    assert reason(request(extension)) is Reason.NOT_ENTITLED


def test_a_subject_and_a_challenge_password_are_refused() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")])
    password = builder().add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")

    assert reason(request(subject=subject)) is Reason.NOT_ENTITLED
    assert reason(password.sign(key(), None).public_bytes(Encoding.PEM)) is Reason.NOT_ENTITLED


def test_other_keys_than_ml_dsa_87_are_refused() -> None:
    curve = builder().sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    smaller = builder().sign(MLDSA65PrivateKey.generate(), None)

    assert reason(curve.public_bytes(Encoding.PEM)) is Reason.CSR_KEY
    assert reason(smaller.public_bytes(Encoding.PEM)) is Reason.CSR_KEY


def test_a_request_for_somebody_elses_key_is_refused() -> None:
    der = x509.load_pem_x509_csr(plain()).public_bytes(Encoding.DER)
    mine, other = (one.public_key().public_bytes_raw() for one in (key(), MLDSA87PrivateKey.generate()))
    stolen = pem_of(der.replace(mine, other))

    assert reason(stolen) is Reason.CSR_SIGNATURE


def test_a_request_is_one_pem_block_of_at_most_64_kib() -> None:
    assert reason(b"") is Reason.CSR_MALFORMED
    assert reason(b"garbage") is Reason.CSR_MALFORMED
    assert reason(plain() * 2) is Reason.CSR_MALFORMED
    assert reason(plain().replace(b"CERTIFICATE REQUEST", b"CERTIFICATE")) is Reason.CSR_MALFORMED
    assert reason(bytes(MAX_REQUEST_SIZE + 1)) is Reason.TOO_LARGE


def pem_of(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE REQUEST-----\n%s-----END CERTIFICATE REQUEST-----\n" % base64.encodebytes(der)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(pem_of)))
def test_whatever_is_sent_is_refused_and_nothing_else_happens(content: bytes) -> None:
    assert reason(content) is Reason.CSR_MALFORMED


def test_no_byte_of_a_request_can_be_changed() -> None:
    der = x509.load_pem_x509_csr(plain()).public_bytes(Encoding.DER)
    start = der.index(key().public_key().public_bytes_raw())
    end = start + 2592
    # All of the structure, and samples of the key and the signature, which have none. Not the count of unused bits in
    # front of the signature (4627 bytes): where the last bits happen to be zero, another count says the same.
    unused_bits = len(der) - 4627 - 1
    places = {*range(start), *range(start, end, 97), *range(end, end + 140), *range(end + 140, len(der), 97)}
    for place in sorted(places - {unused_bits}):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(der)
            changed[place] ^= flip
            assert reason(pem_of(bytes(changed))) in {Reason.CSR_MALFORMED, Reason.CSR_KEY, Reason.CSR_SIGNATURE}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_extensions_that_are_signed_but_broken_are_refused(data: st.DataObject) -> None:
    oid = data.draw(
        st.sampled_from(["2.5.29.17", "2.5.29.15", "2.5.29.37", "2.5.29.19", "2.5.29.14", "1.3.6.1.5.5.7.1.1"])
    )
    content = data.draw(st.binary(max_size=24))
    broken = request(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), content))
    try:
        check_csr(broken, PROVEN)
    except Refused as refused:
        assert refused.reason in {Reason.CSR_MALFORMED, Reason.NOT_ENTITLED}
    else:  # an empty list of names or uses, or digitalSignature, by chance
        assert oid in {"2.5.29.17", "2.5.29.15", "2.5.29.37", "2.5.29.19"}
