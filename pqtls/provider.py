"""The primitives that the engine needs, behind one small interface.

Key agreement has the shape of a KEM for all algorithms, Diffie-Hellman included: the client generates a key pair, the
server answers its public share with a share of its own and already knows the secret, the client finishes with the
answer. A hybrid group is then nothing but a row of such algorithms (groups.py).
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple, Protocol

from pqtls.signatures import SignatureScheme
from pqtls.suites import CipherSuite


class Agreement(Enum):
    """A key-agreement algorithm: sizes in bytes of the client's share, the server's share and the secret."""

    ML_KEM_768 = ("ML-KEM-768", 1184, 1088, 32)  # FIPS 203, table 3
    ML_KEM_1024 = ("ML-KEM-1024", 1568, 1568, 32)  # FIPS 203, table 3
    X25519 = ("X25519", 32, 32, 32)  # RFC 7748 §6.1
    SECP384R1 = ("secp384r1", 97, 97, 48)  # RFC 8446 §4.2.8.2: uncompressed point, 1 + 2 * 48

    def __init__(self, label: str, client_share: int, server_share: int, secret: int) -> None:
        self.label = label
        self.client_share_size = client_share
        self.server_share_size = server_share
        self.secret_size = secret


class InvalidShare(ValueError):
    """A peer's share is no valid public key or ciphertext of its algorithm, or yields the all-zero secret."""


class Answer(NamedTuple):
    """What the responder makes of the initiator's share."""

    share: bytes
    secret: bytes


class PrivateShare(Protocol):
    """The initiator's half of one key agreement, used once."""

    @property
    def public(self) -> bytes:
        """The share to send."""
        ...

    def finish(self, answer: bytes) -> bytes:
        """Return the shared secret, or raise InvalidShare."""
        ...


class Aead(Protocol):
    """AES-GCM or ChaCha20-Poly1305 under one key; the tag of 16 bytes stands behind the ciphertext (RFC 5116)."""

    def encrypt_into(self, nonce: bytes, data: Any, associated_data: Any, buf: Any, /) -> int:
        """Write len(data) + 16 bytes to `buf`, which has exactly that size, and return their number."""
        ...

    def decrypt_into(self, nonce: bytes, data: Any, associated_data: Any, buf: Any, /) -> int:
        """Write len(data) - 16 bytes to `buf`, which has exactly that size; raise what `Provider.invalid_tag` names."""
        ...


class SigningKey(Protocol):
    """A private key as its provider holds it. Opaque, and never printed."""


class CryptoProvider(Protocol):
    """One implementation of every primitive."""

    def __hash__(self) -> int:
        """Constants that a provider computed are kept with it as the key."""
        ...

    @property
    def name(self) -> str:
        """As a user chooses it, for example "cryptography"."""
        ...

    @property
    def invalid_tag(self) -> type[Exception]:
        """What `Aead.decrypt_into` raises when authentication fails."""
        ...

    def random_bytes(self, length: int) -> bytes:
        """Bytes of a cryptographically secure generator."""
        ...

    def generate_share(self, algorithm: Agreement) -> PrivateShare:
        """Make the initiator's half."""
        ...

    def answer_share(self, algorithm: Agreement, share: bytes) -> Answer:
        """Make the responder's half from the initiator's `share`, or raise InvalidShare.

        For ML-KEM this includes the encapsulation-key check of FIPS 203 §7.2.
        """
        ...

    def sign(self, key: SigningKey, scheme: SignatureScheme, message: bytes) -> bytes:
        """Sign `message`."""
        ...

    def verify(self, public_key: object, scheme: SignatureScheme, signature: bytes, message: bytes) -> bool:
        """Return whether `signature` is `public_key`'s over `message`. A wrong kind of key gives False."""
        ...

    def aead(self, suite: CipherSuite, key: bytes) -> Aead:
        """The record protection of `suite` under `key`."""
        ...

    def hkdf_extract(self, hash_name: str, salt: bytes, key_material: bytes) -> bytes:
        """HKDF-Extract (RFC 5869 §2.2)."""
        ...

    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, length: int) -> bytes:
        """HKDF-Expand (RFC 5869 §2.3) to `length` bytes."""
        ...


def default_provider() -> CryptoProvider:
    """The provider that installs everywhere: the package `cryptography`, with OpenSSL in its wheel."""
    from pqtls.provider_cryptography import PROVIDER  # noqa: PLC0415  # the door imports this module

    return PROVIDER
