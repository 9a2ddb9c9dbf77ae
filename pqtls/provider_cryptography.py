"""The default provider: the package `cryptography` >= 50, which carries OpenSSL 4 in its wheel.

One of the two doors to `cryptography` in this room (the other is certificates.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pqtls.errors import MisuseError
from pqtls.provider import Aead, Agreement, Answer, CryptoProvider, InvalidShare, PrivateShare, SigningKey
from pqtls.signatures import SignatureScheme
from pqtls.suites import CipherSuite

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}
_CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}

_KemPrivateKey = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey


@dataclass(frozen=True, slots=True)
class _KemShare:
    key: _KemPrivateKey

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def finish(self, answer: bytes) -> bytes:
        # FIPS 203 §7.3: a ciphertext of the right size always decapsulates (implicit rejection).
        try:
            return self.key.decapsulate(answer)
        except ValueError as error:
            raise InvalidShare(str(error)) from None


@dataclass(frozen=True, slots=True)
class _X25519Share:
    key: x25519.X25519PrivateKey

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def finish(self, answer: bytes) -> bytes:
        return _x25519(self.key, answer)


@dataclass(frozen=True, slots=True)
class _Secp384r1Share:
    key: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def finish(self, answer: bytes) -> bytes:
        return _secp384r1(self.key, answer)


def _x25519(key: x25519.X25519PrivateKey, peer: bytes) -> bytes:
    try:
        return key.exchange(x25519.X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        # RFC 8446 §7.4.2: the all-zero result, from a point of small order, must abort the handshake.
        raise InvalidShare("the X25519 result is all zeros, so the point has small order") from None


def _secp384r1(key: ec.EllipticCurvePrivateKey, peer: bytes) -> bytes:
    # RFC 8446 §4.2.8.2: uncompressed points only, validated to lie on the curve.
    if peer[:1] != b"\x04":
        raise InvalidShare("the P-384 point is not in uncompressed form")
    try:
        return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), peer))
    except ValueError:
        raise InvalidShare("the P-384 point is not on the curve") from None


_GENERATORS: Final[dict[Agreement, Callable[[], PrivateShare]]] = {
    Agreement.ML_KEM_1024: lambda: _KemShare(mlkem.MLKEM1024PrivateKey.generate()),
    Agreement.ML_KEM_768: lambda: _KemShare(mlkem.MLKEM768PrivateKey.generate()),
    Agreement.X25519: lambda: _X25519Share(x25519.X25519PrivateKey.generate()),
    Agreement.SECP384R1: lambda: _Secp384r1Share(ec.generate_private_key(ec.SECP384R1())),
}


class CryptographyProvider:
    """Every primitive from the package `cryptography`."""

    name = "cryptography"
    invalid_tag: Final[type[Exception]] = InvalidTag

    def random_bytes(self, length: int) -> bytes:
        """Bytes of the operating system's generator."""
        return os.urandom(length)

    def generate_share(self, algorithm: Agreement) -> PrivateShare:
        """Make the initiator's half."""
        return _GENERATORS[algorithm]()

    def answer_share(self, algorithm: Agreement, share: bytes) -> Answer:
        """Make the responder's half; OpenSSL runs FIPS 203's encapsulation-key check when it loads the key."""
        if algorithm in (Agreement.ML_KEM_1024, Agreement.ML_KEM_768):
            return _encapsulate(algorithm, share)
        own = self.generate_share(algorithm)
        secret = own.finish(share)
        return Answer(own.public, secret)

    def sign(self, key: SigningKey, scheme: SignatureScheme, message: bytes) -> bytes:
        """Sign `message`; `key` must be of the scheme's type (Credential sees to it)."""
        match key:
            case mldsa.MLDSA87PrivateKey() if scheme.key_type == "ML-DSA-87":
                return key.sign(message)
            case ec.EllipticCurvePrivateKey() if isinstance(key.curve, _CURVES.get(scheme.key_type, ())):
                return key.sign(message, ec.ECDSA(_HASHES[scheme.hash_name or ""]))
        raise MisuseError(f"a private key of another type cannot sign with {scheme.name}")

    def verify(self, public_key: object, scheme: SignatureScheme, signature: bytes, message: bytes) -> bool:
        """Return whether the signature holds."""
        try:
            match public_key:
                case mldsa.MLDSA87PublicKey() if scheme.key_type == "ML-DSA-87":
                    public_key.verify(signature, message)
                case ec.EllipticCurvePublicKey() if isinstance(public_key.curve, _CURVES.get(scheme.key_type, ())):
                    public_key.verify(signature, message, ec.ECDSA(_HASHES[scheme.hash_name or ""]))
                case _:
                    return False
        except InvalidSignature:
            return False
        return True

    def aead(self, suite: CipherSuite, key: bytes) -> Aead:
        """The suite's AEAD under `key`."""
        return ChaCha20Poly1305(key) if suite.aead == "ChaCha20-Poly1305" else AESGCM(key)

    def hkdf_extract(self, hash_name: str, salt: bytes, key_material: bytes) -> bytes:
        """HKDF-Extract (RFC 5869 §2.2)."""
        return HKDF.extract(_HASHES[hash_name], salt, key_material)

    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, length: int) -> bytes:
        """HKDF-Expand (RFC 5869 §2.3)."""
        return HKDFExpand(_HASHES[hash_name], length, info).derive(secret)


def _encapsulate(algorithm: Agreement, share: bytes) -> Answer:
    try:
        public: mlkem.MLKEM1024PublicKey | mlkem.MLKEM768PublicKey
        if algorithm is Agreement.ML_KEM_1024:
            public = mlkem.MLKEM1024PublicKey.from_public_bytes(share)
        else:
            public = mlkem.MLKEM768PublicKey.from_public_bytes(share)
    except ValueError:
        raise InvalidShare(f"the {algorithm.label} key fails the check of FIPS 203 section 7.2") from None
    secret, ciphertext = public.encapsulate()
    return Answer(ciphertext, secret)


PROVIDER: Final[CryptoProvider] = CryptographyProvider()
