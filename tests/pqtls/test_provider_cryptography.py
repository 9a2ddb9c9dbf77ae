"""The primitives against the vectors of their standards, and what they refuse."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, rsa, x25519

from pqtls.errors import MisuseError
from pqtls.provider import Agreement, InvalidShare
from pqtls.provider_cryptography import PROVIDER, _X25519Share
from pqtls.signatures import ECDSA_SECP256R1_SHA256, ECDSA_SECP384R1_SHA384, MLDSA87, SignatureScheme
from pqtls.suites import CIPHER_SUITES, CipherSuite

_SCHEMES = (MLDSA87, ECDSA_SECP384R1_SHA384, ECDSA_SECP256R1_SHA256)


@cache
def _key(kind: str) -> Any:
    match kind:
        case "ML-DSA-87":
            return mldsa.MLDSA87PrivateKey.generate()
        case "ML-DSA-65":
            return mldsa.MLDSA65PrivateKey.generate()
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "P-521":
            return ec.generate_private_key(ec.SECP521R1())
    return rsa.generate_private_key(65537, 2048)


def test_hkdf_gives_the_first_vector_of_rfc_5869() -> None:
    prk = PROVIDER.hkdf_extract("sha256", bytes.fromhex("000102030405060708090a0b0c"), b"\x0b" * 22)
    assert prk.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    okm = PROVIDER.hkdf_expand("sha256", prk, bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42)
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_x25519_gives_the_rfc_8448_secret() -> None:
    """The key pair and the server's share of RFC 8448 section 3."""
    rfc = json.loads(Path(__file__).with_name("rfc8448_section3.json").read_text())
    share = _X25519Share(x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(rfc["client_private_key"])))
    assert share.public.hex() == rfc["client_public_key"]
    assert share.finish(bytes.fromhex(rfc["server_public_key"])).hex() == rfc["shared_secret"]


@pytest.mark.parametrize("suite", CIPHER_SUITES.values(), ids=lambda suite: suite.name)
def test_what_is_sealed_opens_and_what_is_damaged_does_not(suite: CipherSuite) -> None:
    aead = PROVIDER.aead(suite, bytes(suite.key_length))
    sealed, opened = bytearray(5 + 16), bytearray(5)
    assert aead.encrypt_into(bytes(12), b"hello", b"ad", sealed) == 21
    assert aead.decrypt_into(bytes(12), sealed, b"ad", opened) == 5
    assert opened == b"hello"
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        with pytest.raises(PROVIDER.invalid_tag):
            aead.decrypt_into(bytes(12), damaged, b"ad", bytearray(5))
    with pytest.raises(PROVIDER.invalid_tag):
        aead.decrypt_into(bytes(12), sealed, b"other", bytearray(5))


def test_each_suite_has_its_own_aead() -> None:
    sealed = set()
    for suite in CIPHER_SUITES.values():
        buffer = bytearray(16)
        PROVIDER.aead(suite, bytes(suite.key_length)).encrypt_into(bytes(12), b"", b"", buffer)
        sealed.add(bytes(buffer))
    assert len(sealed) == len(CIPHER_SUITES)


@pytest.mark.parametrize("scheme", _SCHEMES, ids=lambda scheme: scheme.name)
def test_a_signature_holds_for_its_message_and_key_alone(scheme: SignatureScheme) -> None:
    key = _key(scheme.key_type)
    signature = PROVIDER.sign(key, scheme, b"message")
    assert PROVIDER.verify(key.public_key(), scheme, signature, b"message")
    assert not PROVIDER.verify(key.public_key(), scheme, signature, b"massage")
    assert not PROVIDER.verify(key.public_key(), scheme, signature[:-1], b"message")
    assert not PROVIDER.verify(key.public_key(), scheme, b"", b"message")


def test_ml_dsa_signs_with_an_empty_context() -> None:
    key = _key("ML-DSA-87")
    signature = PROVIDER.sign(key, MLDSA87, b"message")
    assert len(signature) == 4627  # FIPS 204, table 2
    key.public_key().verify(signature, b"message")
    assert not PROVIDER.verify(key.public_key(), MLDSA87, key.sign(b"message", b"context"), b"message")


@pytest.mark.parametrize("scheme", _SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("kind", ["ML-DSA-87", "ML-DSA-65", "P-256", "P-384", "P-521", "RSA"])
def test_a_key_of_another_type_neither_signs_nor_verifies(scheme: SignatureScheme, kind: str) -> None:
    if kind == scheme.key_type:
        assert PROVIDER.sign(_key(kind), scheme, b"")
        return
    with pytest.raises(MisuseError, match=f"cannot sign with {scheme.name}"):
        PROVIDER.sign(_key(kind), scheme, b"")
    right = PROVIDER.sign(_key(scheme.key_type), scheme, b"")
    assert not PROVIDER.verify(_key(kind).public_key(), scheme, right, b"")


@pytest.mark.parametrize("algorithm", [Agreement.ML_KEM_768, Agreement.ML_KEM_1024])
def test_an_encapsulation_key_that_is_none_is_refused(algorithm: Agreement) -> None:
    with pytest.raises(InvalidShare, match=f"{algorithm.label} key fails the check of FIPS 203 section 7.2"):
        PROVIDER.answer_share(algorithm, b"\xff" * algorithm.client_share_size)


def test_a_ciphertext_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(InvalidShare):
        PROVIDER.generate_share(Agreement.ML_KEM_1024).finish(bytes(1567))


# RFC 7748 section 6.1 and curve25519's known points of small order: each yields the all-zero secret.
@pytest.mark.parametrize(
    "point",
    [
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_an_x25519_point_of_small_order_is_refused(point: str) -> None:
    with pytest.raises(InvalidShare, match="all zeros"):
        PROVIDER.answer_share(Agreement.X25519, bytes.fromhex(point))


def test_a_p384_point_must_be_uncompressed_and_on_the_curve() -> None:
    point = PROVIDER.generate_share(Agreement.SECP384R1).public
    compressed = bytes((2 + point[-1] % 2,)) + point[1:49]
    for wrong, text in [
        (compressed, "not in uncompressed form"),
        (point[:-1] + bytes((point[-1] ^ 1,)), "not on the curve"),
        (b"\0", "not in uncompressed form"),  # the point at infinity
        (b"", "not in uncompressed form"),
    ]:
        with pytest.raises(InvalidShare, match=text):
            PROVIDER.answer_share(Agreement.SECP384R1, wrong)


def test_randomness_has_the_length_asked_for_and_differs() -> None:
    assert len(PROVIDER.random_bytes(32)) == 32
    assert PROVIDER.random_bytes(32) != PROVIDER.random_bytes(32)
