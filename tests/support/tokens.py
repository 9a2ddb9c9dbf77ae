"""An issuer of tokens, made of `cryptography` alone: what verifies them is not what signed them."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://issuer.example"
NOW = 1_900_000_000.0

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: dict[str, tuple[str, ec.EllipticCurve]] = {
    "ES256": ("P-256", ec.SECP256R1()),
    "ES384": ("P-384", ec.SECP384R1()),
    "ES512": ("P-521", ec.SECP521R1()),
}
_ML_DSA: dict[str, Any] = {
    "ML-DSA-44": mldsa.MLDSA44PrivateKey,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey,
}
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", *_CURVES, "EdDSA", "Ed25519", "Ed448", *_ML_DSA)


@dataclass(frozen=True)
class Issuer:
    """One key pair: its public half as RFC 7517 has it, and what it signs with."""

    jwk: Mapping[str, Any]
    algorithm: str
    sign: Callable[[bytes], bytes]

    def named(self, kid: str) -> Issuer:
        return replace(self, jwk={**self.jwk, "kid": kid})

    def token(self, claims: Mapping[str, Any] | None = None, header: Mapping[str, Any] | None = None) -> str:
        """A token with these claims beside a good issuer, subject and expiry; None leaves one of those out."""
        values = {"iss": ISSUER, "sub": "alice", "exp": int(NOW) + 600, **(claims or {})}
        head = {"alg": self.algorithm, "kid": self.jwk.get("kid"), **(header or {})}
        return self.signed(encoded(head), encoded(values))

    def signed(self, header: bytes, payload: bytes) -> str:
        """A token of exactly these bytes."""
        covered = b".".join((base64url(header), base64url(payload)))
        return b".".join((covered, base64url(self.sign(covered)))).decode("ascii")


def encoded(members: Mapping[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8)).decode("ascii")


def key_set(*issuers: Issuer) -> bytes:
    return json.dumps({"keys": [issuer.jwk for issuer in issuers]}).encode()


@functools.cache
def issuer(algorithm: str, which: int = 0) -> Issuer:
    """The key pair number `which` for this algorithm, made once."""
    if algorithm in _CURVES:
        return _of_curve(algorithm)
    if algorithm in _ML_DSA:
        return _of_ml_dsa(algorithm)
    if algorithm.startswith("Ed"):
        return _of_edwards(algorithm)
    return of_rsa(algorithm)


def of_rsa(algorithm: str, bits: int = 2048) -> Issuer:
    private = rsa.generate_private_key(65537, bits)
    digest = _HASHES[algorithm[2:]]
    numbers = private.public_key().public_numbers()
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm.startswith("PS"):
        scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return Issuer(
        {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)},
        algorithm,
        lambda text: private.sign(text, scheme, digest),
    )


def _of_curve(algorithm: str) -> Issuer:
    name, curve = _CURVES[algorithm]
    private = ec.generate_private_key(curve)
    numbers = private.public_key().public_numbers()
    size = (curve.key_size + 7) // 8

    def sign(text: bytes) -> bytes:
        r, s = decode_dss_signature(private.sign(text, ec.ECDSA(_HASHES[algorithm[2:]])))
        return r.to_bytes(size) + s.to_bytes(size)

    x, y = (base64url(coordinate.to_bytes(size)).decode("ascii") for coordinate in (numbers.x, numbers.y))
    return Issuer({"kty": "EC", "crv": name, "x": x, "y": y}, algorithm, sign)


def _of_edwards(algorithm: str) -> Issuer:
    curve = "Ed448" if algorithm == "Ed448" else "Ed25519"
    private = (ed448.Ed448PrivateKey if curve == "Ed448" else ed25519.Ed25519PrivateKey).generate()
    x = base64url(private.public_key().public_bytes_raw()).decode("ascii")
    return Issuer({"kty": "OKP", "crv": curve, "x": x}, algorithm, private.sign)


def _of_ml_dsa(algorithm: str) -> Issuer:
    private = _ML_DSA[algorithm].generate()
    public = base64url(private.public_key().public_bytes_raw()).decode("ascii")
    return Issuer({"kty": "AKP", "alg": algorithm, "pub": public}, algorithm, private.sign)
