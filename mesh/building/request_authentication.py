"""RequestAuthentication: whose JSON Web Tokens are believed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.building import checks
from mesh.building.durations import duration
from mesh.building.metadata import SECURITY, match_labels, resource
from mesh.building.parts import Part, parts

_MOST_RULES: Final = 4096  # Istio's schema; each issuer is one
_LONGEST_URI: Final = 2048  # likewise
# RFC 3986 §3 as far as it goes for HTTP: no user, and ASCII alone.
_URI: Final = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?:[/?#][!-~]*)?\Z")
_LONGEST_KEYS: Final = 1 << 18  # a resource with labels and all has at most 1.5 MiB in the API server's store
_CLAIM_HEADER: Final = re.compile(r"[-_A-Za-z0-9]+\Z")
# RFC 7518 §6.3.2, §6.2.2, §6.4 and RFC 8037 §2, and of ML-DSA: what of a key must never stand in a manifest.
_PRIVATE_PARTS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})


@dataclass(frozen=True, slots=True)
class JwtRule(Part):
    """Whose tokens are believed: those of `issuer`, whose keys are at `jwks_uri` (http or https) or are `jwks`.

    `jwks` is a JSON Web Key Set (RFC 7517 §5) as text or as a dict, with public keys alone. Without either, `issuer`
    must be an http or https URI, and Istio looks for the keys where OpenID Connect Discovery puts them. Without
    `audiences` any audience is accepted. A token is looked for in the Authorization header and in the query parameter
    access_token, unless `from_headers` (dicts with `name` and an optional `prefix`), `from_params` or `from_cookies`
    say where. `output_claim_to_headers` maps headers to the claims that are put there. `timeout` is for fetching the
    keys. Raises ValueError, which names the argument.
    """

    issuer: str
    jwks_uri: str | None = None
    jwks: str | Mapping[str, Any] | None = None
    audiences: Sequence[str] = ()
    from_headers: Sequence[Mapping[str, str]] | None = None
    from_params: Sequence[str] | None = None
    from_cookies: Sequence[str] | None = None
    forward_original_token: bool = False
    output_payload_to_header: str | None = None
    output_claim_to_headers: Mapping[str, str] | None = None
    timeout: str | float | None = None

    def _build(self) -> dict[str, Any]:
        rule: dict[str, Any] = {"issuer": checks.text("issuer", self.issuer)}
        rule |= self._keys()
        if audiences := checks.several("audiences", self.audiences, checks.text):
            rule["audiences"] = audiences
        rule |= self._places()
        rule |= self._outputs()
        if self.timeout is not None:
            rule["timeout"] = duration("timeout", self.timeout)
        return rule

    def _keys(self) -> dict[str, str]:
        if self.jwks_uri is not None and self.jwks is not None:
            raise ValueError("jwks: jwks_uri is given too; give one of them")
        if self.jwks_uri is not None:
            return {"jwksUri": _uri("jwks_uri", self.jwks_uri)}
        if self.jwks is not None:
            return {"jwks": _key_set("jwks", self.jwks)}
        if not _URI.match(self.issuer):
            raise ValueError(
                "jwks_uri: the issuer is no address at which keys could be looked for; give jwks_uri or jwks"
            )
        return {}

    def _places(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.from_headers is not None:
            found["fromHeaders"] = checks.several("from_headers", self.from_headers, _header_location, fewest=1)
        if self.from_params is not None:
            found["fromParams"] = checks.several("from_params", self.from_params, checks.text, fewest=1)
        if self.from_cookies is not None:
            found["fromCookies"] = checks.several("from_cookies", self.from_cookies, checks.token, fewest=1)
        return found

    def _outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.output_payload_to_header is not None:
            header = checks.token("output_payload_to_header", self.output_payload_to_header)
            found["outputPayloadToHeader"] = header
        if self.output_claim_to_headers is not None:
            found["outputClaimToHeaders"] = _claims("output_claim_to_headers", self.output_claim_to_headers)
        if checks.flag("forward_original_token", self.forward_original_token):
            found["forwardOriginalToken"] = True
        return found


def request_authentication(
    name: str,
    namespace: str,
    jwt_rules: Sequence[JwtRule],
    *,
    selector: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a RequestAuthentication for the workloads that `selector` names, or else for the namespace.

    A request with a token that none of the rules believes is refused; one without a token passes: whoever must have
    one is said by an AuthorizationPolicy with requestPrincipals.
    """
    spec: dict[str, Any] = {}
    if selector is not None:
        spec["selector"] = match_labels("selector", selector)
    spec["jwtRules"] = parts("jwt_rules", jwt_rules, JwtRule, most=_MOST_RULES)
    return resource(SECURITY, "RequestAuthentication", name, namespace, spec, labels=labels, annotations=annotations)


def _uri(argument: str, value: object) -> str:
    found = _URI.match(value) if isinstance(value, str) and len(value) <= _LONGEST_URI else None
    if found is None or not 0 < int(found["port"] or 443) <= checks.MAX_PORT:
        raise checks.refused(
            argument, value, "an http or https URI, as in https://auth.example.com/.well-known/jwks.json"
        )
    return found.string


def _key_set(argument: str, value: object) -> str:
    """The key set as compact text, as Istio's field wants it. No message shows any of it: it might hold a secret."""
    allowed = "a JSON Web Key Set: {'keys': [...]}, with public keys alone"
    try:
        found = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{argument}: this is no JSON; give {allowed}") from None
    keys = found.get("keys") if isinstance(found, Mapping) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise ValueError(f"{argument}: this is no key set; give {allowed}")
    if any(_PRIVATE_PARTS & key.keys() or key.get("kty") == "oct" for key in keys):
        raise ValueError(f"{argument}: a key in it is private or shared; give {allowed}")
    if len(text) > _LONGEST_KEYS:
        raise ValueError(f"{argument}: more than {_LONGEST_KEYS} characters; give fewer keys, or jwks_uri")
    return text


def _header_location(argument: str, value: object) -> dict[str, str]:
    given = checks.fields(argument, value, ("name", "prefix"), needed=("name",))
    found = {"name": checks.token(f"{argument}.name", given["name"])}
    if "prefix" in given:
        found["prefix"] = checks.text(f"{argument}.prefix", given["prefix"])
    return found


def _claims(argument: str, value: object) -> list[dict[str, str]]:
    if not isinstance(value, Mapping) or not value:
        raise checks.refused(argument, value, "a dict from headers to claims, as in {'x-user': 'sub'}")
    found = []
    for header, claim in value.items():
        if not isinstance(header, str) or not _CLAIM_HEADER.match(header):
            raise checks.refused(argument, header, "names of headers: letters, digits, '-' and '_'")
        found.append({"header": header, "claim": checks.text(f"{argument}[{header!r}]", claim)})
    return found
