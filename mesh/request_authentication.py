"""RequestAuthentication: whose tokens a workload takes, where a request carries them, and what must be in them.

It refuses a request with a bad token and lets one without any pass: that a token is there is asked for by an
AuthorizationPolicy (requestPrincipals).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mesh.claims import words_of
from mesh.documents import Path
from mesh.metadata import Metadata
from mesh.reading import WORDS, Report, boolean, both, duration, fields, list_of, reader_of, seconds, shown, text
from mesh.selectors import ONE_SCOPE, SCOPE, Selector, Workload, read_selector

if TYPE_CHECKING:
    from mesh.resources import ResourceSet

# Istio's, where a rule names none; in seconds.
DEFAULT_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class FromHeader:
    """A header that carries a token, behind `prefix`."""

    name: str
    prefix: str = ""


# Where a token is looked for when a rule names no place: RFC 6750 §2.1 and §2.3.
DEFAULT_HEADERS: Final = (FromHeader("Authorization", "Bearer "),)
DEFAULT_PARAMS: Final = ("access_token",)


@dataclass(frozen=True, slots=True)
class JwtRule:
    """One issuer's tokens."""

    issuer: str  # "": any, where jwks_uri is given
    audiences: tuple[str, ...] = ()  # one of them must be in the token; none: any audience, or none
    jwks_uri: str = ""
    jwks: str = ""  # the keys themselves; where neither is given they are found by OpenID discovery at the issuer
    from_headers: tuple[FromHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    forward_original_token: bool = False
    output_payload_to_header: str = ""
    output_claim_to_headers: tuple[tuple[str, str], ...] = ()  # (claim, header)
    space_delimited_claims: tuple[str, ...] = ()
    timeout: float = DEFAULT_TIMEOUT  # of fetching keys, in seconds
    required: bool = False  # a request without this issuer's token is refused

    def as_policies_see(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        """The claims of a token that was verified by this rule, those with spaces between their values as lists."""
        return {
            name: list(words_of(value)) if name in self.space_delimited_claims and isinstance(value, str) else value
            for name, value in claims.items()
        }

    @property
    def headers(self) -> tuple[FromHeader, ...]:
        """The headers that are looked at."""
        return self.from_headers if self._names_a_place else DEFAULT_HEADERS

    @property
    def params(self) -> tuple[str, ...]:
        """The parameters of the query that are looked at."""
        return self.from_params if self._names_a_place else DEFAULT_PARAMS

    @property
    def _names_a_place(self) -> bool:
        return bool(self.from_headers or self.from_params or self.from_cookies)


@dataclass(frozen=True, slots=True)
class RequestAuthentication:
    """One resource."""

    metadata: Metadata
    rules: tuple[JwtRule, ...]
    selector: Selector


def rule_of(issuer: object, rules: Iterable[JwtRule]) -> JwtRule | None:
    """The rule for tokens of `issuer`: the first that names it, else the first that takes any issuer's."""
    if not isinstance(issuer, str):
        return None  # a token that names none is nobody's
    listed = list(rules)
    return next((one for wanted in (issuer, "") for one in listed if one.issuer == wanted), None)


def jwt_rules(resources: ResourceSet, workload: Workload) -> tuple[JwtRule, ...]:
    """The rules of every resource that applies to `workload`, those of the oldest first: they add up."""
    mine = [
        each
        for each in resources.request_authentications
        if each.selector.selects(workload, each.metadata.namespace, resources.root_namespace)
    ]
    return tuple(rule for each in sorted(mine, key=lambda each: each.metadata.age) for rule in each.rules)


# Reading

# RFC 9110 §5.1, as far as Istio takes it.
_HEADER: Final = text(pattern=r"[-_A-Za-z0-9]+", wanted="name of a header")
_URI: Final = text(pattern=r"https?://[^\s/?#]+\S*", wanted="address of a key set: http:// or https://", most=2048)


def _key_set(value: str, path: Path, report: Report) -> None:
    """RFC 7517 §5, as far as it is needed to say that this is none; whoever verifies reads it whole."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    keys = found.get("keys") if isinstance(found, Mapping) else None
    if not isinstance(keys, list) or not all(isinstance(key, Mapping) for key in keys):
        report.error(path, 'is no set of keys (RFC 7517): {"keys": [...]}')
    elif any(key.get("kty") == "oct" or "d" in key or "priv" in key for key in keys):
        report.warning(path, "holds a private or secret key: public keys are all that is needed to verify")


_RULE: Final = fields(
    {
        "issuer": WORDS,
        "audiences": list_of(WORDS),
        "jwksUri": _URI,
        "jwks_uri": _URI,
        "jwks": both(text(), _key_set),
        "fromHeaders": list_of(fields({"name": WORDS, "prefix": text()}, required=("name",))),
        "fromParams": list_of(WORDS),
        "fromCookies": list_of(WORDS),
        "forwardOriginalToken": boolean,
        "outputPayloadToHeader": text(),
        "outputClaimToHeaders": list_of(fields({"header": _HEADER, "claim": WORDS}, required=("header", "claim"))),
        "spaceDelimitedClaims": list_of(WORDS, most=64),
        "timeout": duration(),
        "presence": text(choices=("OPTIONAL", "REQUIRED")),
    },
    at_most_one=(("jwksUri", "jwks_uri", "jwks"),),
)
SPEC: Final = fields({**SCOPE, "jwtRules": list_of(_RULE, most=4096)}, at_most_one=ONE_SCOPE)


@reader_of(SPEC)
def read_request_authentication(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> RequestAuthentication:
    """The resource that `spec` writes."""
    rules = tuple(
        _read_rule(rule, ("spec", "jwtRules", index), report) for index, rule in enumerate(spec.get("jwtRules", ()))
    )
    if not rules:
        report.warning(("spec", "jwtRules"), "names no issuer: no token is asked for, and none is looked at")
    return RequestAuthentication(metadata, rules, read_selector(spec, report))


def _read_rule(rule: Mapping[str, Any], path: Path, report: Report) -> JwtRule:
    uri = rule.get("jwksUri", rule.get("jwks_uri", ""))
    issuer = rule.get("issuer", "")
    if not issuer and not uri:
        report.error((*path, "issuer"), "is missing: name the issuer, or where its keys are (jwksUri)")
    if issuer and not uri and "jwks" not in rule and not re.match("https?://", issuer):
        report.warning((*path, "issuer"), f"{shown(issuer)} is no address to find keys at: give jwksUri or jwks")
    return JwtRule(
        issuer=issuer,
        audiences=tuple(rule.get("audiences", ())),
        jwks_uri=uri,
        jwks=rule.get("jwks", ""),
        from_headers=tuple(FromHeader(each["name"], each.get("prefix", "")) for each in rule.get("fromHeaders", ())),
        from_params=tuple(rule.get("fromParams", ())),
        from_cookies=tuple(rule.get("fromCookies", ())),
        forward_original_token=rule.get("forwardOriginalToken", False),
        output_payload_to_header=rule.get("outputPayloadToHeader", ""),
        output_claim_to_headers=tuple((each["claim"], each["header"]) for each in rule.get("outputClaimToHeaders", ())),
        space_delimited_claims=tuple(rule.get("spaceDelimitedClaims", ())),
        timeout=seconds(rule["timeout"]) if "timeout" in rule else DEFAULT_TIMEOUT,
        required=rule.get("presence") == "REQUIRED",
    )
