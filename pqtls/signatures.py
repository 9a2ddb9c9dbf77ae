"""Signature schemes of TLS (RFC 8446 §4.2.3), as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SignatureScheme:
    """A SignatureScheme code point. `hash_name` is None where the algorithm hashes by itself."""

    name: str
    code_point: int
    key_type: str
    hash_name: str | None


# draft-ietf-tls-mldsa: pure ML-DSA of FIPS 204 §5.2 with an empty context string.
MLDSA87: Final = SignatureScheme("mldsa87", 0x0906, "ML-DSA-87", None)
# RFC 8446 §4.2.3: in TLS 1.3 the curve is part of the scheme.
ECDSA_SECP384R1_SHA384: Final = SignatureScheme("ecdsa_secp384r1_sha384", 0x0503, "P-384", "sha384")
ECDSA_SECP256R1_SHA256: Final = SignatureScheme("ecdsa_secp256r1_sha256", 0x0403, "P-256", "sha256")

SIGNATURE_SCHEMES: Final = {
    scheme.code_point: scheme for scheme in (MLDSA87, ECDSA_SECP384R1_SHA384, ECDSA_SECP256R1_SHA256)
}
