"""The table of signature schemes."""

from __future__ import annotations

from pqtls.signatures import SIGNATURE_SCHEMES


def test_the_schemes_have_the_code_points_of_the_registry() -> None:
    rows = {code: (scheme.name, scheme.key_type, scheme.hash_name) for code, scheme in SIGNATURE_SCHEMES.items()}
    assert rows == {
        0x0906: ("mldsa87", "ML-DSA-87", None),
        0x0503: ("ecdsa_secp384r1_sha384", "P-384", "sha384"),
        0x0403: ("ecdsa_secp256r1_sha256", "P-256", "sha256"),
    }
