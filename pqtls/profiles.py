"""Profiles: what may be negotiated. What a profile does not list never is, whatever a peer offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pqtls.groups import MLKEM1024, SECP384R1MLKEM1024, X25519MLKEM768, X25519MLKEM1024, NamedGroup
from pqtls.signatures import ECDSA_SECP256R1_SHA256, ECDSA_SECP384R1_SHA384, MLDSA87, SignatureScheme
from pqtls.suites import (
    TLS_AES_128_GCM_SHA256,
    TLS_AES_256_GCM_SHA384,
    TLS_CHACHA20_POLY1305_SHA256,
    CipherSuite,
)


@dataclass(frozen=True, slots=True)
class Profile:
    """Groups, signature schemes and cipher suites, each in order of preference."""

    name: str
    groups: tuple[NamedGroup, ...]
    signature_schemes: tuple[SignatureScheme, ...]
    cipher_suites: tuple[CipherSuite, ...]


QBITEL: Final = Profile("qbitel", (X25519MLKEM1024,), (MLDSA87,), (TLS_AES_256_GCM_SHA384,))
HYBRID_L5: Final = Profile("hybrid-l5", (SECP384R1MLKEM1024,), (MLDSA87,), (TLS_AES_256_GCM_SHA384,))
# The algorithms that CNSA 2.0 names. This is no claim of certification.
CNSA2: Final = Profile("cnsa2", (MLKEM1024,), (MLDSA87,), (TLS_AES_256_GCM_SHA384,))
# For foreign peers and foreign test suites; never used unless asked for.
COMPAT: Final = Profile(
    "compat",
    (X25519MLKEM768,),
    (MLDSA87, ECDSA_SECP384R1_SHA384, ECDSA_SECP256R1_SHA256),
    (TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256),
)

PROFILES: Final = {profile.name: profile for profile in (QBITEL, HYBRID_L5, CNSA2, COMPAT)}
