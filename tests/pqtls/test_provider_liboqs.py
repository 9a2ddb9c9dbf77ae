"""liboqs as the provider, checked against the first provider in both directions."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa

from pqtls import provider_liboqs
from pqtls.errors import MisuseError
from pqtls.profiles import CNSA2, COMPAT, HYBRID_L5, QBITEL
from pqtls.provider import Agreement, CryptoProvider, InvalidShare
from pqtls.provider_cryptography import PROVIDER
from pqtls.provider_liboqs import LiboqsProvider, UnusableLibraryError
from pqtls.signatures import ECDSA_SECP384R1_SHA384, MLDSA87
from tests.support import pki
from tests.support.providers import liboqs
from tests.support.resumption import meet

KEMS = (Agreement.ML_KEM_1024, Agreement.ML_KEM_768)
MESSAGE = b"the transcript"


@pytest.fixture
def other() -> LiboqsProvider:
    return liboqs()


def _pairs(other: CryptoProvider) -> tuple[tuple[CryptoProvider, CryptoProvider], ...]:
    return ((PROVIDER, other), (other, PROVIDER), (other, other))


@pytest.mark.parametrize("algorithm", Agreement, ids=lambda algorithm: algorithm.label)
def test_what_one_provider_begins_the_other_answers(other: LiboqsProvider, algorithm: Agreement) -> None:
    for first, second in _pairs(other):
        share = first.generate_share(algorithm)
        answer = second.answer_share(algorithm, share.public)
        assert len(share.public) == algorithm.client_share_size
        assert len(answer.share) == algorithm.server_share_size
        assert share.finish(answer.share) == answer.secret
        assert len(answer.secret) == algorithm.secret_size


def test_what_one_provider_signs_the_other_verifies(other: LiboqsProvider) -> None:
    key = pki.leaf("server").key
    for signer, verifier in _pairs(other):
        signature = signer.sign(key, MLDSA87, MESSAGE)
        assert verifier.verify(key.public_key(), MLDSA87, signature, MESSAGE)
        assert not verifier.verify(key.public_key(), MLDSA87, signature, MESSAGE + b"!")
        assert not verifier.verify(pki.leaf("client").key.public_key(), MLDSA87, signature, MESSAGE)


def test_both_refuse_a_signature_with_a_bit_changed_or_of_another_length(other: LiboqsProvider) -> None:
    key = pki.leaf("server").key
    signature = other.sign(key, MLDSA87, MESSAGE)
    for place in range(0, len(signature), 301):
        wrong = signature[:place] + bytes((signature[place] ^ 1,)) + signature[place + 1 :]
        for provider in (PROVIDER, other):
            assert not provider.verify(key.public_key(), MLDSA87, wrong, MESSAGE), place
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(len(signature))):
        for provider in (PROVIDER, other):
            assert not provider.verify(key.public_key(), MLDSA87, wrong, MESSAGE)


def test_many_keys_in_turn_each_sign_as_themselves(other: LiboqsProvider) -> None:
    keys = [mldsa.MLDSA87PrivateKey.generate() for _ in range(6)]
    for key in (*keys, *keys):
        signature = other.sign(key, MLDSA87, MESSAGE)
        assert [PROVIDER.verify(one.public_key(), MLDSA87, signature, MESSAGE) for one in keys] == [
            one is key for one in keys
        ]


def test_expanding_a_key_leaves_the_randomness_as_random_as_it_was(other: LiboqsProvider) -> None:
    shares = set()
    for _ in range(3):
        other.sign(mldsa.MLDSA87PrivateKey.generate(), MLDSA87, MESSAGE)
        shares.add(other.generate_share(Agreement.ML_KEM_1024).public)
    assert len(shares) == 3
    public = PROVIDER.generate_share(Agreement.ML_KEM_1024).public
    assert len({other.answer_share(Agreement.ML_KEM_1024, public).secret for _ in range(3)}) == 3


@pytest.mark.parametrize("algorithm", KEMS, ids=lambda algorithm: algorithm.label)
def test_a_key_that_fails_the_modulus_check_is_refused_by_both(other: LiboqsProvider, algorithm: Agreement) -> None:
    public = PROVIDER.generate_share(algorithm).public
    # FIPS 203 §7.2: a coefficient of 4095 is not below the modulus 3329.
    for provider in (PROVIDER, other):
        with pytest.raises(InvalidShare):
            provider.answer_share(algorithm, b"\xff\xff\xff" + public[3:])


@pytest.mark.parametrize("algorithm", KEMS, ids=lambda algorithm: algorithm.label)
def test_a_share_or_ciphertext_of_another_length_is_refused_by_both(
    other: LiboqsProvider, algorithm: Agreement
) -> None:
    public = PROVIDER.generate_share(algorithm).public
    for provider in (PROVIDER, other):
        for share in (b"", public[:-1], public + b"\0"):
            with pytest.raises(InvalidShare):
                provider.answer_share(algorithm, share)
        for size in (0, algorithm.server_share_size - 1, algorithm.server_share_size + 1):
            with pytest.raises(InvalidShare):
                provider.generate_share(algorithm).finish(bytes(size))


@pytest.mark.parametrize("algorithm", KEMS, ids=lambda algorithm: algorithm.label)
def test_a_changed_ciphertext_gives_another_secret_and_no_error(other: LiboqsProvider, algorithm: Agreement) -> None:
    share = other.generate_share(algorithm)
    answer = PROVIDER.answer_share(algorithm, share.public)
    changed = bytes((answer.share[0] ^ 1,)) + answer.share[1:]
    secret = share.finish(changed)
    assert len(secret) == 32
    assert secret != answer.secret


def test_classical_signatures_are_those_of_the_first_provider(other: LiboqsProvider) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    signature = other.sign(key, ECDSA_SECP384R1_SHA384, MESSAGE)
    assert other.verify(key.public_key(), ECDSA_SECP384R1_SHA384, signature, MESSAGE)
    assert not other.verify(key.public_key(), MLDSA87, signature, MESSAGE)
    with pytest.raises(MisuseError, match="private key of another type"):
        other.sign(key, MLDSA87, MESSAGE)


@pytest.mark.parametrize("profile", [QBITEL, HYBRID_L5, CNSA2, COMPAT], ids=lambda profile: profile.name)
def test_handshakes_between_both_providers_complete_in_every_profile(other: LiboqsProvider, profile: Any) -> None:
    for first, second in _pairs(other):
        met = meet(
            pki.client_config(profiles=(profile,), provider=first),
            pki.server_config(profiles=(profile,), provider=second),
        )
        assert met.at_client.profile == profile.name


def test_it_says_its_name_and_version(other: LiboqsProvider) -> None:
    assert other.name == "liboqs"
    assert other.library_version.split(".")[0].isdigit()


# -- without the library --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["ML-KEM-768", "ML-KEM-1024", "ML-DSA-87"])
def test_a_library_that_was_built_without_an_algorithm_is_unusable(missing: str) -> None:
    module = SimpleNamespace(
        is_kem_enabled=lambda name: name != missing,
        is_sig_enabled=lambda name: name != missing,
        Signature=lambda name: name,
    )
    with pytest.raises(UnusableLibraryError, match=f"built without {missing}$"):
        LiboqsProvider(module)


class FakeSignature:
    """Stands for a liboqs that cannot be had: one whose key generation is not what it should be."""

    length_signature = 4627

    def __init__(self, _name: str) -> None:
        self.freed = False

    def generate_keypair(self) -> bytes:
        return bytes(2592)

    def free(self) -> None:
        self.freed = True


@pytest.mark.parametrize(
    ("restored", "complaint"),
    [(0, "does not expand ML-DSA-87 seeds"), (1, "did not go back to the system's randomness")],
)
def test_a_library_that_does_not_take_the_seed_or_keeps_it_signs_nothing(restored: int, complaint: str) -> None:
    native = SimpleNamespace(
        OQS_MEM_cleanse=None,
        OQS_randombytes_custom_algorithm=lambda _callback: None,
        OQS_randombytes_switch_algorithm=lambda _name: restored,
    )
    module = SimpleNamespace(
        is_kem_enabled=lambda _name: True,
        is_sig_enabled=lambda _name: True,
        Signature=FakeSignature,
        KeyEncapsulation=lambda _name: None,
        native=lambda: native,
    )
    with pytest.raises(UnusableLibraryError, match=complaint):
        LiboqsProvider(module).sign(pki.leaf("server").key, MLDSA87, MESSAGE)


class FakeKem:
    """Stands for a liboqs that cannot be had: one that fails to decapsulate."""

    def __init__(self, _name: str) -> None:
        self.secret_key: ctypes.Array[ctypes.c_char] | None = None

    def generate_keypair(self) -> bytes:
        self.secret_key = ctypes.create_string_buffer(b"secret", 6)
        return b"public"

    def decap_secret(self, _ciphertext: bytes) -> bytes:
        raise RuntimeError("Can not decapsulate secret")


def _provider_over_fakes() -> LiboqsProvider:
    def cleanse(target: ctypes.Array[ctypes.c_char], size: int) -> None:
        ctypes.memset(target, 0, size)

    return LiboqsProvider(
        SimpleNamespace(
            is_kem_enabled=lambda _name: True,
            is_sig_enabled=lambda _name: True,
            Signature=FakeSignature,
            KeyEncapsulation=FakeKem,
            native=lambda: SimpleNamespace(OQS_MEM_cleanse=cleanse),
        )
    )


def _share() -> provider_liboqs._KemShare:
    share = _provider_over_fakes().generate_share(Agreement.ML_KEM_1024)
    assert isinstance(share, provider_liboqs._KemShare)
    return share


@pytest.mark.parametrize(("size", "complaint"), [(1568, "decapsulate"), (1567, "1567 bytes, not 1568")])
def test_a_decapsulation_that_fails_is_an_invalid_share_and_the_key_is_wiped_all_the_same(
    size: int, complaint: str
) -> None:
    share = _share()
    key = share.secret_key
    assert key.raw == b"secret"
    with pytest.raises(InvalidShare, match=complaint):
        share.finish(bytes(size))
    assert key.raw == bytes(6)


def test_the_key_of_a_handshake_that_came_to_nothing_is_wiped() -> None:
    share = _share()
    key = share.secret_key
    del share
    assert key.raw == bytes(6)


def test_a_share_is_used_once_and_is_not_printed() -> None:
    share = _share()
    assert "secret" not in repr(share)
    with pytest.raises(InvalidShare):
        share.finish(b"")
    with pytest.raises(MisuseError, match="used once"):
        share.finish(bytes(1568))


def test_shares_that_are_made_before_others_are_used_keep_their_own_keys(other: LiboqsProvider) -> None:
    shares = [other.generate_share(algorithm) for algorithm in (*KEMS, *KEMS)]
    for algorithm, share in zip((*KEMS, *KEMS), shares, strict=True):
        answer = PROVIDER.answer_share(algorithm, share.public)
        assert share.finish(answer.share) == answer.secret
