"""The keys that an issuer publishes (RFC 7517), as far as tokens may be verified with them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from mesh.strict_json import NotStrict, load_object

# A key set is a stranger's: the largest that are published have about twenty keys, of 2 KiB with their certificates.
MAX_KEY_SET: Final = 512 * 1024
MAX_KEYS: Final = 64
_DEPTH: Final = 16
_MAX_KID: Final = 512  # characters; usually a digest or a UUID
# RFC 7518 §3.3 has 2048 at least. Verifying costs the square of the length, on a stranger's word.
_RSA_BITS: Final = range(2048, 8192 + 1)
_LONGEST_EXPONENT: Final = 32  # bits; it is 65537 nearly everywhere, and a long one makes verifying slow

_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_ED25519: Final = frozenset({"EdDSA", "Ed25519"})  # RFC 8037, and its name since RFC 9864
_ML_DSA: Final = frozenset({"ML-DSA-44", "ML-DSA-65", "ML-DSA-87"})  # RFC 9964
# What a key can be used for, by its type and curve: a key alone decides that, never a token (RFC 8725 §3.1).
_BY_CURVE: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): _ED25519,
    ("OKP", "Ed448"): frozenset({"EdDSA", "Ed448"}),
}
ALGORITHMS: Final = frozenset(_RSA_ALGORITHMS | _ML_DSA).union(*_BY_CURVE.values())
"""Every algorithm that a token may be signed with. None is symmetric: whoever can verify could forge."""

# The members that make up the public key; nothing else of what was published is handed to the library.
_PUBLIC: Final[Mapping[str, tuple[str, ...]]] = {
    "RSA": ("n", "e"),
    "EC": ("crv", "x", "y"),
    "OKP": ("crv", "x"),
    "AKP": ("alg", "pub"),
}
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


class KeySetRefused(ValueError):
    """What was published is not a key set; the message says why in one line."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key: what it is called, and the algorithms of the tokens that it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    jwk: JWK = field(repr=False, compare=False)
    """The library's key."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer; `notes` says which were passed over, and why."""

    keys: tuple[VerificationKey, ...]
    notes: tuple[str, ...] = ()

    def candidates(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys that may have signed a token with this `kid` and `alg`: a key without a name may be any."""
        return tuple(
            key
            for key in self.keys
            if algorithm in key.algorithms and (kid is None or key.kid is None or key.kid == kid)
        )


def read_key_set(text: bytes) -> KeySet:
    """Read a JWK Set as an issuer serves it, or as `jwks` of a RequestAuthentication holds it; raise KeySetRefused.

    Keys that are of no use here (encryption, symmetric, an unknown type, too short, private) are noted and passed over
    (RFC 7517 §5): an issuer that publishes a key of a new kind does not lock its users out.
    """
    if len(text) > MAX_KEY_SET:
        raise KeySetRefused(f"the key set has {len(text)} bytes; at most {MAX_KEY_SET} are read")
    try:
        entries = load_object(text, _DEPTH).get("keys")
    except NotStrict as error:
        raise KeySetRefused(f"the key set cannot be read: {error}") from None
    if not isinstance(entries, list):
        raise KeySetRefused("the key set has no list `keys` (RFC 7517 §5)")
    if len(entries) > MAX_KEYS:
        raise KeySetRefused(f"the key set has {len(entries)} keys; at most {MAX_KEYS} are read")
    keys: list[VerificationKey] = []
    notes: list[str] = []
    for number, entry in enumerate(entries):
        try:
            keys.append(_read_key(entry))
        except _Unusable as reason:
            notes.append(f"keys[{number}]: {reason}")
    return KeySet(tuple(keys), tuple(notes))


class _Unusable(Exception):
    """A key is passed over; the reason goes into the notes. It must not quote what a stranger wrote."""


def _read_key(entry: object) -> VerificationKey:
    if not isinstance(entry, dict):
        raise _Unusable("it is no object")
    kind = entry.get("kty")
    if kind == "oct":
        raise _Unusable("it is symmetric: whoever can verify with it can also forge")
    if not isinstance(kind, str) or kind not in _PUBLIC:
        raise _Unusable("its type (kty) is not known")
    if _SECRET & entry.keys():
        raise _Unusable("it holds a private key, which is no secret any more")
    _check_purpose(entry)
    kid = entry.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > _MAX_KID):
        raise _Unusable(f"its kid is not a string of at most {_MAX_KID} characters")
    algorithms = _algorithms(kind, entry)
    return VerificationKey(kid, algorithms, _imported(kind, entry))


def _check_purpose(entry: Mapping[str, Any]) -> None:
    if entry.get("use", "sig") != "sig":
        raise _Unusable("its use is not sig (RFC 7517 §4.2)")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("its key_ops have no verify (RFC 7517 §4.3)")


def _algorithms(kind: str, entry: Mapping[str, Any]) -> frozenset[str]:
    """What the key can do by its type and curve, cut down to its `alg` where it has one."""
    if kind == "RSA":
        possible = _RSA_ALGORITHMS
    elif kind == "AKP":
        possible = _ML_DSA
        if "alg" not in entry:
            raise _Unusable("a key of type AKP must have an alg (RFC 9964 §3)")
    else:
        curve = entry.get("crv")
        possible = _BY_CURVE.get((kind, curve), frozenset()) if isinstance(curve, str) else frozenset()
        if not possible:
            raise _Unusable("its curve is not one for signatures that is known here")
    if "alg" not in entry:
        return possible
    algorithm = entry["alg"]
    if not isinstance(algorithm, str) or algorithm not in possible:
        raise _Unusable("its alg is not one that a key of its type and curve can have")
    # One algorithm under two names (RFC 9864 §2.2): EdDSA with this curve, and the curve's own.
    return possible if "EdDSA" in possible else frozenset({algorithm})


def _imported(kind: str, entry: Mapping[str, Any]) -> JWK:
    members: dict[str, str] = {}
    for name in _PUBLIC[kind]:
        value = entry.get(name)
        if not isinstance(value, str) or (name not in ("crv", "alg") and not _BASE64URL.fullmatch(value)):
            raise _Unusable(f"its member {name} is missing, or not of the form that it must have")
        members[name] = value
    try:
        if kind == "RSA":
            _check_rsa(members["n"], members["e"])
        jwk = JWK(kty=kind, **members)
        # The library makes the key of it on first use; what is wrong with it must be known now.
        jwk.get_op_key("verify", members["crv"] if kind == "EC" else None)
    except (JWException, ValueError, TypeError, OverflowError):
        raise _Unusable("its members are no public key of its type") from None
    return jwk


def _check_rsa(modulus: str, exponent: str) -> None:
    bits, exponent_bits = (
        int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))).bit_length()
        for text in (modulus, exponent)
    )
    if bits not in _RSA_BITS:
        raise _Unusable(f"it has {bits} bits; {_RSA_BITS.start} to {_RSA_BITS.stop - 1} are taken")
    if exponent_bits > _LONGEST_EXPONENT:
        raise _Unusable(f"its exponent is longer than {_LONGEST_EXPONENT} bits")
