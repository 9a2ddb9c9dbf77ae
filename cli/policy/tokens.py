"""The token of a request that `qbitel policy explain` is asked about: what a sidecar would believe of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mesh.errors import UserError
from mesh.request_authentication import JwtRule, rule_of

_MOST: Final = 1 << 20  # bytes of a file with a token or keys; both have some kilobytes


@dataclass(frozen=True, slots=True)
class Believed:
    """What became of a token. `refused`: the request is answered 401 before any policy is asked."""

    claims: Mapping[str, Any] | None
    words: str
    refused: bool = False


NONE: Final = Believed(None, "no token")


def believed(given: str | None, keys: str | None, rules: Sequence[JwtRule], now: float) -> Believed:
    """What the workload's `rules` make of a token: `given` is a file of it, a file of claims, or claims as JSON.

    Claims are taken as those of a token whose signature and times are good. A token is verified with the keys of the
    rule, or those of the file `keys`: nothing is fetched.
    """
    if given is None:
        return _without(rules)
    text = given if given.lstrip().startswith("{") else _text(given, "a token, or its claims as JSON")
    if text.lstrip().startswith("{"):
        return _of_claims(_claims(text), rules)
    return _of_token(text.strip(), keys, rules, now)


def _without(rules: Sequence[JwtRule]) -> Believed:
    for rule in rules:
        if rule.required:
            return Believed(None, f"none, and the workload wants one of {rule.issuer}: 401", refused=True)
    return NONE


def _of_claims(claims: dict[str, Any], rules: Sequence[JwtRule]) -> Believed:
    issuer = claims.get("iss")
    rule = rule_of(issuer, rules)
    if rule is None:
        return _unknown(issuer, rules)
    audiences = claims.get("aud", [])
    named = [audiences] if isinstance(audiences, str) else audiences
    if rule.audiences and not (isinstance(named, list) and set(rule.audiences) & set(map(str, named))):
        return Believed(None, f"of {issuer}, for none of the audiences {', '.join(rule.audiences)}: 401", refused=True)
    return Believed(rule.as_policies_see(claims), f"claims of {issuer}, taken as verified")


def _of_token(token: str, keys: str | None, rules: Sequence[JwtRule], now: float) -> Believed:
    # The JOSE library is wanted here alone.
    from mesh.jwks import KeySetRefused, read_key_set  # noqa: PLC0415
    from mesh.jwt import JwtRefused, unverified_issuer, verify  # noqa: PLC0415

    issuer = unverified_issuer(token)
    if issuer is None:
        return Believed(None, "it is none: three parts in base64url with dots between them: 401", refused=bool(rules))
    rule = rule_of(issuer, rules)
    if rule is None:
        return _unknown(issuer, rules)
    text = _text(keys, "a key set (JWKS)") if keys is not None else rule.jwks
    if not text:
        where = rule.jwks_uri or "the issuer's own address"
        raise UserError(f"the keys of {issuer} are at {where}, which is not asked here; give them by --jwks FILE")
    try:
        outcome = verify(token, read_key_set(text.encode()), rule.issuer, rule.audiences, now)
    except KeySetRefused as error:
        raise UserError(f"the keys of {issuer} cannot be used: {error}") from None
    if isinstance(outcome, JwtRefused):
        return Believed(None, f"of {issuer}, refused ({outcome}): 401", refused=True)
    return Believed(rule.as_policies_see(outcome.values), f"of {outcome.principal or issuer}, verified")


def _unknown(issuer: object, rules: Sequence[JwtRule]) -> Believed:
    """A token of somebody else: refused where tokens are looked at ("Jwt issuer is not configured"), as in Istio."""
    whose = f"of {str(issuer)[:200]!r}"
    if rules:
        return Believed(None, f"{whose}, which no RequestAuthentication of the workload names: 401", refused=True)
    return Believed(None, f"{whose}: no RequestAuthentication is about the workload, and it is ignored")


def _claims(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError('--jwt: the claims are no JSON object, such as {"iss": "https://issuer.example", "sub": "ann"}')
    return found


def _text(path: str, wanted: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read(_MOST)
        with Path(path).open(encoding="utf-8") as stream:
            return stream.read(_MOST)
    except OSError as error:
        # Not the path itself: whoever pastes a token in its place must not find it in a log.
        raise UserError(f"{wanted} is wanted in a file, which cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{wanted} is wanted in a file, and this one is no text") from None
