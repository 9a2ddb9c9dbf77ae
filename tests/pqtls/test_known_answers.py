"""Answers that others computed, asked of every provider that is present.

Wycheproof's files are read from the folder vectors/wycheproof of the corpus that QBITEL_CORPUS names; NIST's and the
IETF's come with the package cryptography-vectors. The vectors of our private group are our own
(docs/adr/0007-private-group.md).
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, mlkem, x25519

from pqtls import provider_liboqs
from pqtls.key_schedule import EarlySecret
from pqtls.provider import Agreement, CryptoProvider, InvalidShare, PrivateShare
from pqtls.provider_cryptography import _KemShare, _Secp384r1Share, _X25519Share
from pqtls.signatures import MLDSA87
from pqtls.suites import TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384
from tests.support.providers import liboqs, present

by_provider = pytest.mark.parametrize("name", ["cryptography", "liboqs"])
_PRIVATE_GROUP = Path(__file__).parent / "vectors" / "x25519mlkem1024.json"


def _wycheproof(file: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each test of a file with its group; the test that asks is skipped where there is no corpus."""
    path = Path(os.environ.get("QBITEL_CORPUS", "/nonexistent"), "vectors", "wycheproof", file)
    if not path.is_file():
        pytest.skip("QBITEL_CORPUS names no folder with Wycheproof's vectors")
    document = json.loads(path.read_text())
    return ((group, test) for group in document["testGroups"] for test in group["tests"])


def _nist(path: str) -> str:
    """A file of cryptography-vectors; the test that asks is skipped without the package."""
    if importlib.util.find_spec("cryptography_vectors") is None:
        pytest.skip("cryptography-vectors is not installed")
    with importlib.import_module("cryptography_vectors").open_vector_file(path, "r") as file:
        text: str = file.read()
    return text


def _kem_share(name: str, seed: bytes) -> PrivateShare:
    """The initiator's half that this seed (d, z) gives."""
    if name == "cryptography":
        return _KemShare(mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed))
    provider = liboqs()
    with provider._oqs.KeyEncapsulation("ML-KEM-1024") as maker:
        public = maker.generate_keypair_seed(seed)
        secret_key = ctypes.create_string_buffer(maker.export_secret_key())
    return provider_liboqs._KemShare(provider._kems[Agreement.ML_KEM_1024], public, secret_key)


# -- ML-KEM-1024 ----------------------------------------------------------------------------------------------------


@by_provider
def test_ml_kem_1024_keys_come_out_of_their_seeds(name: str) -> None:
    checked = 0
    for _, test in _wycheproof("mlkem_1024_keygen_seed_test.json"):
        assert _kem_share(name, bytes.fromhex(test["seed"])).public.hex() == test["ek"], test["tcId"]
        checked += 1
    assert checked >= 100


@by_provider
def test_ml_kem_1024_decapsulates_as_wycheproof_says(name: str) -> None:
    outcomes = {"valid": 0, "invalid": 0}
    for _, test in _wycheproof("mlkem_1024_test.json"):
        outcomes[test["result"]] += 1
        seed, ciphertext = bytes.fromhex(test["seed"]), bytes.fromhex(test["c"])
        if test["result"] == "valid":
            share = _kem_share(name, seed)
            assert share.public.hex() == test["ek"], test["tcId"]
            assert share.finish(ciphertext).hex() == test["K"], test["tcId"]
        elif len(seed) == 64:
            with pytest.raises(InvalidShare):
                _kem_share(name, seed).finish(ciphertext)
    assert min(outcomes.values()) >= 40


@by_provider
def test_ml_kem_1024_refuses_encapsulation_keys_as_wycheproof_says(name: str) -> None:
    provider = present(name)
    outcomes = {"valid": 0, "invalid": 0}
    for _, test in _wycheproof("mlkem_1024_encaps_test.json"):
        outcomes[test["result"]] += 1
        share = bytes.fromhex(test["ek"])
        if test["result"] == "valid":
            answer = provider.answer_share(Agreement.ML_KEM_1024, share)
            assert (len(answer.share), len(answer.secret)) == (1568, 32)
        else:
            with pytest.raises(InvalidShare):
                provider.answer_share(Agreement.ML_KEM_1024, share)
    assert min(outcomes.values()) >= 100


# -- ML-DSA-87 ------------------------------------------------------------------------------------------------------


@by_provider
def test_ml_dsa_87_verifies_as_wycheproof_says(name: str) -> None:
    provider = present(name)
    outcomes = {"valid": 0, "invalid": 0}
    for group, test in _wycheproof("mldsa_87_verify_test.json"):
        public = bytes.fromhex(group["publicKey"])
        # TLS signs with the empty context, and a key of another length is no key: neither reaches a provider.
        if test.get("ctx") or "msg" not in test or len(public) != 2592:
            continue
        outcomes[test["result"]] += 1
        key = mldsa.MLDSA87PublicKey.from_public_bytes(public)
        holds = provider.verify(key, MLDSA87, bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]))
        assert holds is (test["result"] == "valid"), test["tcId"]
    assert outcomes["valid"] >= 40
    assert outcomes["invalid"] >= 100


@by_provider
def test_ml_dsa_87_signs_with_the_key_that_a_seed_of_wycheproof_gives(name: str) -> None:
    provider = present(name)
    checked = set()
    for group, test in _wycheproof("mldsa_87_sign_seed_test.json"):
        seed = bytes.fromhex(group["privateSeed"])
        if test["result"] != "valid" or "msg" not in test or test.get("ctx"):
            continue
        key = mldsa.MLDSA87PrivateKey.from_seed_bytes(seed)
        assert key.public_key().public_bytes_raw().hex() == group["publicKey"]
        message = bytes.fromhex(test["msg"])
        assert provider.verify(key.public_key(), MLDSA87, bytes.fromhex(test["sig"]), message), test["tcId"]
        # Signing is randomized (FIPS 204 §3.4), so the signature is another one: it has to hold all the same.
        if seed not in checked:
            checked.add(seed)
            assert provider.verify(key.public_key(), MLDSA87, provider.sign(key, MLDSA87, message), message)
    assert len(checked) == 19


# -- Diffie-Hellman -------------------------------------------------------------------------------------------------


def test_x25519_agrees_with_wycheproof_and_refuses_the_zero_secret() -> None:
    zeros = checked = 0
    for _, test in _wycheproof("x25519_test.json"):
        share = _X25519Share(x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(test["private"])))
        public = bytes.fromhex(test["public"])
        checked += 1
        if set(test["shared"]) == {"0"}:
            zeros += 1
            with pytest.raises(InvalidShare):
                share.finish(public)
        else:
            assert share.finish(public).hex() == test["shared"], test["tcId"]
    assert checked >= 500
    assert zeros >= 30


def test_p_384_agrees_with_wycheproof_and_refuses_what_is_no_uncompressed_point_of_the_curve() -> None:
    outcomes = {"valid": 0, "invalid": 0, "acceptable": 0}
    for _, test in _wycheproof("ecdh_secp384r1_ecpoint_test.json"):
        share = _Secp384r1Share(ec.derive_private_key(int(test["private"], 16), ec.SECP384R1()))
        public = bytes.fromhex(test["public"])
        outcomes[test["result"]] += 1
        if test["result"] == "valid":
            assert share.finish(public).hex() == test["shared"], test["tcId"]
        else:  # what is acceptable is a compressed point, which TLS 1.3 does not have
            with pytest.raises(InvalidShare):
                share.finish(public)
    assert outcomes["valid"] >= 700
    assert outcomes["invalid"] >= 15


# -- symmetric ------------------------------------------------------------------------------------------------------


@by_provider
def test_hkdf_with_sha_384_agrees_with_wycheproof(name: str) -> None:
    provider = present(name)
    checked = 0
    for _, test in _wycheproof("hkdf_sha384_test.json"):
        if test["result"] != "valid":
            continue
        # RFC 5869 §2.2: no salt is a string of zeros.
        salt = bytes.fromhex(test["salt"]) or bytes(48)
        secret = provider.hkdf_extract("sha384", salt, bytes.fromhex(test["ikm"]))
        assert provider.hkdf_expand("sha384", secret, bytes.fromhex(test["info"]), test["size"]).hex() == test["okm"]
        checked += 1
    assert checked >= 80


@by_provider
def test_aes_gcm_agrees_with_wycheproof(name: str) -> None:
    provider = present(name)
    outcomes = {"valid": 0, "invalid": 0}
    suites = {128: TLS_AES_128_GCM_SHA256, 256: TLS_AES_256_GCM_SHA384}
    for group, test in _wycheproof("aes_gcm_test.json"):
        if (group["ivSize"], group["tagSize"]) != (96, 128) or group["keySize"] not in suites:
            continue
        outcomes[test["result"]] += 1
        aead = provider.aead(suites[group["keySize"]], bytes.fromhex(test["key"]))
        nonce, data = bytes.fromhex(test["iv"]), bytes.fromhex(test["aad"])
        message, sealed = bytes.fromhex(test["msg"]), bytes.fromhex(test["ct"] + test["tag"])
        opened = bytearray(len(message))
        if test["result"] == "invalid":
            with pytest.raises(provider.invalid_tag):
                aead.decrypt_into(nonce, sealed, data, opened)
            continue
        aead.decrypt_into(nonce, sealed, data, opened)
        assert opened == message, test["tcId"]
        made = bytearray(len(sealed))
        aead.encrypt_into(nonce, message, data, made)
        assert made == sealed, test["tcId"]
    assert outcomes["valid"] >= 60
    assert outcomes["invalid"] >= 40


# -- the IETF's and NIST's ------------------------------------------------------------------------------------------


def _records(text: str) -> list[dict[str, str]]:
    """The records of one of these files: names in lower case, and what stands behind the sign of equality."""
    records: list[dict[str, str]] = []
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        name = name.strip().lower()
        if name == "count":
            records.append({})
        elif separator and records:
            records[-1][name] = value.strip()
    return records


def test_x25519_agrees_with_rfc_7748() -> None:
    records = _records(_nist("asymmetric/X25519/rfc7748.txt"))
    assert len(records) >= 2
    for record in records[:2]:  # what follows them is iterated thousands of times
        share = _X25519Share(x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(record["input_scalar"])))
        assert share.finish(bytes.fromhex(record["input_u"])).hex() == record["output_u"]


@by_provider
def test_ml_kem_1024_agrees_with_the_known_answers_of_its_key_generation_and_decapsulation(name: str) -> None:
    records = _records(_nist("asymmetric/MLKEM/kat_MLKEM_1024.rsp"))
    assert len(records) >= 100
    for record in records[:100]:
        share = _kem_share(name, bytes.fromhex(record["d"] + record["z"]))
        assert share.public.hex() == record["pk"].lower()
        assert share.finish(bytes.fromhex(record["ct"])).hex() == record["ss"].lower()


@by_provider
def test_ml_dsa_87_keys_come_out_of_the_seeds_of_the_known_answers_and_sign(name: str) -> None:
    """Their signatures all have a context, which TLS does not use."""
    provider = present(name)
    records = _records(_nist("asymmetric/MLDSA/kat_MLDSA_87_det_pure.rsp"))
    assert len(records) >= 20
    for record in records[:20]:
        key = mldsa.MLDSA87PrivateKey.from_seed_bytes(bytes.fromhex(record["xi"]))
        assert key.public_key().public_bytes_raw().hex() == record["pk"].lower()
        message = bytes.fromhex(record["msg"])
        assert provider.verify(key.public_key(), MLDSA87, provider.sign(key, MLDSA87, message), message)


# -- our own --------------------------------------------------------------------------------------------------------


def _private_group() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_PRIVATE_GROUP.read_text())
    return document


def test_the_vectors_of_the_private_group_say_what_they_are_of() -> None:
    document = _private_group()
    assert (document["group"], document["code_point"]) == ("X25519MLKEM1024", "0xfec4")
    assert document["cipher_suite"] == TLS_AES_256_GCM_SHA384.name
    assert len(document["vectors"]) == 8


@by_provider
def test_the_vectors_of_the_private_group_hold(name: str) -> None:
    provider: CryptoProvider = present(name)
    for vector in _private_group()["vectors"]:
        raw = {key: bytes.fromhex(value) for key, value in vector.items()}
        kem = _kem_share(name, raw["ml_kem_1024_seed_d_z"])
        curve = _X25519Share(x25519.X25519PrivateKey.from_private_bytes(raw["x25519_private_key"]))
        assert kem.public + curve.public == raw["client_key_exchange"]
        answer = raw["server_key_exchange"]
        shared = kem.finish(answer[:1568]) + curve.finish(answer[1568:])
        assert shared == raw["shared_secret"]
        early = EarlySecret.without_psk(TLS_AES_256_GCM_SHA384, provider)
        secrets = early.handshake(shared, raw["client_hello_to_server_hello_sha384"])
        assert secrets.client.secret == raw["client_handshake_traffic_secret"]
        assert secrets.server.secret == raw["server_handshake_traffic_secret"]
