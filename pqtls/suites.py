"""Cipher suites of TLS 1.3 (RFC 8446 appendix B.4), as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CipherSuite:
    """An AEAD and the hash of the key schedule; `key_length` in bytes.

    `records_per_key` is after how many records the sender changes its key: for AES-GCM, RFC 8446 §5.5 bounds full-size
    records at 2^24.5; 2^24 stays below it and leaves room for the records that are under way.
    """

    name: str
    code_point: int
    aead: str
    key_length: int
    hash_name: str
    hash_length: int
    records_per_key: int


TLS_AES_256_GCM_SHA384: Final = CipherSuite("TLS_AES_256_GCM_SHA384", 0x1302, "AES-GCM", 32, "sha384", 48, 2**24)
TLS_AES_128_GCM_SHA256: Final = CipherSuite("TLS_AES_128_GCM_SHA256", 0x1301, "AES-GCM", 16, "sha256", 32, 2**24)
# RFC 8446 §5.5: ChaCha20-Poly1305 would reach the sequence number's own limit first; 2^48 is below it by far.
TLS_CHACHA20_POLY1305_SHA256: Final = CipherSuite(
    "TLS_CHACHA20_POLY1305_SHA256", 0x1303, "ChaCha20-Poly1305", 32, "sha256", 32, 2**48
)

CIPHER_SUITES: Final = {
    suite.code_point: suite for suite in (TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256)
}
