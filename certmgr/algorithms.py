"""The algorithms that a certificate may use, under their standard names and under the old ones."""

from __future__ import annotations

import enum
from typing import Final


class CertificateAlgorithm(enum.StrEnum):
    """ML-KEM-1024 (FIPS 203) and ML-DSA-87 (FIPS 204); KYBER_1024 and DILITHIUM_5 are the same two members.

    Only the names are old: what is computed is always the standard's algorithm, never round 3's.
    """

    ML_KEM_1024 = "ml-kem-1024"
    ML_DSA_87 = "ml-dsa-87"
    KYBER_1024 = "ml-kem-1024"
    DILITHIUM_5 = "ml-dsa-87"


_KEY_NAMES: Final = {
    "ml-kem-1024": CertificateAlgorithm.ML_KEM_1024,
    "kyber-1024": CertificateAlgorithm.ML_KEM_1024,
}
_SIGNATURE_NAMES: Final = {
    "ml-dsa-87": CertificateAlgorithm.ML_DSA_87,
    "dilithium-5": CertificateAlgorithm.ML_DSA_87,
}


def key_algorithm(value: object) -> CertificateAlgorithm:
    """The KEM that `value` names, a member or a string in either case. ValueError for all but ML-KEM-1024."""
    return _named(value, "key_algorithm", _KEY_NAMES)


def signature_algorithm(value: object) -> CertificateAlgorithm:
    """The signature that `value` names, a member or a string in either case. ValueError for all but ML-DSA-87."""
    return _named(value, "signature_algorithm", _SIGNATURE_NAMES)


def _named(value: object, argument: str, names: dict[str, CertificateAlgorithm]) -> CertificateAlgorithm:
    # A member of the enum is a string too, so that one look-up serves both.
    found = names.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        allowed = ", ".join(repr(name) for name in names)
        raise ValueError(f"{argument}: {str(value)[:40]!r} is not supported; give one of {allowed}")
    return found
