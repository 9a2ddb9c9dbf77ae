"""JSON Web Tokens (RFC 7519), verified: whose they are, for whom, and when, or why they are refused.

Signatures are the library's business (docs/adr/0017-jose.md). What a token may be is decided here: the key says with
which algorithm (RFC 8725 §3.1), a token is the compact form of one signature and nothing else, and whatever it says
about where to find its key is ignored.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from jwcrypto.common import JWException
from jwcrypto.jws import JWS

from mesh.jwks import ALGORITHMS, KeySet, VerificationKey
from mesh.strict_json import NotStrict, load_object

# ML-DSA-87 alone takes 6,170 characters for a signature (4,627 bytes, FIPS 204); servers take 8 to 60 KiB of headers.
MAX_TOKEN: Final = 32 * 1024
LEEWAY: Final = 60.0  # seconds by which clocks may differ: Envoy's clock_skew_seconds
_DEPTH: Final = 32  # of the claims; the header is flat but for an embedded key, which is ignored
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# The year 9999: a time beyond it is a mistake in units (milliseconds are the usual one), or made to overflow something.
_LATEST: Final = 253_402_300_799


class Reason(enum.Enum):
    """Why a token is refused, for counters and for whoever keeps the keys."""

    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown key"  # the one that newer keys may help with
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    CLAIMS = "claims"


@dataclass(frozen=True, slots=True)
class JwtRefused:
    """A token that proves nothing; `detail` is one line without anything of the token in it."""

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token has proved."""

    issuer: str
    subject: str | None
    audiences: tuple[str, ...]
    presenter: str | None  # azp
    expires_at: float | None  # seconds since 1970; None: never
    values: Mapping[str, Any]
    """All claims, as JSON has them: what `request.auth.claims[…]` is asked of."""

    @property
    def principal(self) -> str | None:
        """Istio's `request.auth.principal`: issuer, a slash, subject; None for a token without a subject."""
        return None if self.subject is None else f"{self.issuer}/{self.subject}"


def verify(
    token: str, keys: KeySet, issuer: str, audiences: Collection[str], now: float, *, leeway: float = LEEWAY
) -> Claims | JwtRefused:
    """Verify a token with the keys of the issuer that a rule names; never raises for what is in the token.

    `issuer`: what `iss` must be, exactly; "": whatever it is, for a rule that names keys only. `audiences`: the token
    must be for one of these, exactly (RFC 7519 §4.1.3); empty: for whomever. `now`: seconds since 1970. A token without
    `exp` does not expire, as in Istio: that is its issuer's decision.
    """
    try:
        header, payload = _taken_apart(token)
        _check_signature(token, header, keys)
        # Only now is anything in the payload looked at: it is the issuer's.
        values = _object(payload, "claims")
        claims = _claims(values)
        _check_issuer(claims, issuer)
        _check_audience(claims, audiences)
        _check_times(values, now, leeway)
    except _Refused as refused:
        return refused.why
    return claims


def unverified_issuer(token: str) -> str | None:
    """The issuer that a token claims: to find the rule that applies to it, and for nothing else. None: it has none."""
    try:
        _, payload = _taken_apart(token)
        issuer = _object(payload, "claims").get("iss")
    except _Refused:
        return None
    return issuer if isinstance(issuer, str) else None


class _Refused(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.why = JwtRefused(reason, detail)


def _taken_apart(token: str) -> tuple[dict[str, Any], bytes]:
    """The header, and the payload's bytes."""
    if len(token) > MAX_TOKEN:
        raise _Refused(Reason.MALFORMED, f"the token is longer than {MAX_TOKEN} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise _Refused(Reason.MALFORMED, "the token is not three parts in base64url with dots between them")
    head, payload, _ = (_decoded(part) for part in parts.groups())
    return _object(head, "header"), payload


def _decoded(part: str) -> bytes:
    """Base64url without padding, in the one way to write it (RFC 7515 §2): a token has no second spelling."""
    try:
        content = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise _Refused(Reason.MALFORMED, "a part of the token is not base64url") from None
    if base64.urlsafe_b64encode(content).rstrip(b"=") != part.encode("ascii"):
        raise _Refused(Reason.MALFORMED, "a part of the token is not in the canonical form of base64url")
    return content


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        return load_object(text, _DEPTH)
    except NotStrict as error:
        raise _Refused(Reason.MALFORMED, f"the token's {what} cannot be read: {error}") from None


def _check_signature(token: str, header: Mapping[str, Any], keys: KeySet) -> None:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _Refused(Reason.ALGORITHM, "the token's algorithm is none that is accepted")
    # Nothing that changes what a signature means is understood here, so nothing may be critical (RFC 7515 §4.1.11),
    # and a payload that is not encoded (RFC 7797) is none of a token's.
    if "crit" in header or "b64" in header:
        raise _Refused(Reason.MALFORMED, "the token's header has crit or b64, which no token needs")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise _Refused(Reason.MALFORMED, "the token's kid is not a string")
    candidates = keys.candidates(kid, algorithm)
    if not any(_signed_by(token, key, algorithm) for key in candidates):
        # A key without a name may just not be there yet; a named one that does not fit is a forgery.
        named = kid is not None and any(key.kid == kid for key in candidates)
        raise _Refused(Reason.SIGNATURE if named else Reason.UNKNOWN_KEY, "no key of the issuer verifies the token")


def _signed_by(token: str, key: VerificationKey, algorithm: str) -> bool:
    signed = JWS()
    signed.allowed_algs = [algorithm]
    try:
        signed.deserialize(token)
        signed.verify(key.jwk, algorithm)
    except JWException:
        return False
    return bool(signed.is_valid)


def _claims(values: dict[str, Any]) -> Claims:
    issuer = _text(values, "iss")
    if issuer is None:
        raise _Refused(Reason.CLAIMS, "the token has no issuer (iss)")
    return Claims(
        issuer=issuer,
        subject=_text(values, "sub"),
        audiences=_audiences(values),
        presenter=_text(values, "azp"),
        expires_at=_time(values, "exp"),
        values=MappingProxyType(values),
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    if name not in values:
        return None
    value = values[name]
    if not isinstance(value, str):
        raise _Refused(Reason.CLAIMS, f"the token's claim {name} is not a string")
    return value


def _audiences(values: Mapping[str, Any]) -> tuple[str, ...]:
    """One string or a list of them (RFC 7519 §4.1.3)."""
    value = values.get("aud", [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise _Refused(Reason.CLAIMS, "the token's claim aud is not a string or a list of strings")
    return tuple(listed)


def _time(values: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate: a number, with a fraction or without (RFC 7519 §2)."""
    if name not in values:
        return None
    value = values[name]
    # JSON's true is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise _Refused(Reason.CLAIMS, f"the token's claim {name} is not a time in seconds since 1970")
    return float(value)


def _check_issuer(claims: Claims, issuer: str) -> None:
    if issuer and claims.issuer != issuer:
        raise _Refused(Reason.ISSUER, "the token is of another issuer than its key")


def _check_audience(claims: Claims, audiences: Collection[str]) -> None:
    if audiences and not set(claims.audiences) & set(audiences):
        raise _Refused(Reason.AUDIENCE, "the token is for another audience")


def _check_times(values: Mapping[str, Any], now: float, leeway: float) -> None:
    expires_at, not_before, issued_at = (_time(values, name) for name in ("exp", "nbf", "iat"))
    if expires_at is not None and now >= expires_at + leeway:
        raise _Refused(Reason.EXPIRED, "the token has expired")
    if not_before is not None and now < not_before - leeway:
        raise _Refused(Reason.NOT_YET_VALID, "the token is not valid yet (nbf)")
    if issued_at is not None and now < issued_at - leeway:
        raise _Refused(Reason.NOT_YET_VALID, "the token was issued in the future (iat)")
