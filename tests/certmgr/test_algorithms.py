"""Which algorithms are taken, under which names."""

from __future__ import annotations

import pytest

from certmgr.algorithms import CertificateAlgorithm, key_algorithm, signature_algorithm


def test_the_old_names_are_the_same_members() -> None:
    assert CertificateAlgorithm.KYBER_1024 is CertificateAlgorithm.ML_KEM_1024
    assert CertificateAlgorithm.DILITHIUM_5 is CertificateAlgorithm.ML_DSA_87


@pytest.mark.parametrize("value", ["kyber-1024", "ml-kem-1024", "ML-KEM-1024", CertificateAlgorithm.KYBER_1024])
def test_each_spelling_of_the_kem_is_one_algorithm(value: object) -> None:
    assert key_algorithm(value) is CertificateAlgorithm.ML_KEM_1024


@pytest.mark.parametrize("value", ["dilithium-5", "ml-dsa-87", "Dilithium-5", CertificateAlgorithm.ML_DSA_87])
def test_each_spelling_of_the_signature_is_one_algorithm(value: object) -> None:
    assert signature_algorithm(value) is CertificateAlgorithm.ML_DSA_87


@pytest.mark.parametrize("value", ["kyber-768", "dilithium-5", CertificateAlgorithm.ML_DSA_87, "", None, 1024])
def test_another_kem_is_refused_with_what_is_allowed(value: object) -> None:
    with pytest.raises(ValueError, match=r"key_algorithm: .*'ml-kem-1024', 'kyber-1024'"):
        key_algorithm(value)


@pytest.mark.parametrize("value", ["dilithium-3", "kyber-1024", CertificateAlgorithm.ML_KEM_1024, b"ml-dsa-87"])
def test_another_signature_is_refused_with_what_is_allowed(value: object) -> None:
    with pytest.raises(ValueError, match=r"signature_algorithm: .*'ml-dsa-87', 'dilithium-5'"):
        signature_algorithm(value)
