"""Whose tokens a workload takes, and where they are looked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.request_authentication import (
    DEFAULT_HEADERS,
    DEFAULT_PARAMS,
    FromHeader,
    JwtRule,
    RequestAuthentication,
    jwt_rules,
    rule_of,
)
from mesh.selectors import Workload
from tests.support.policies import document, faults, resources

WEB = Workload("foo", {"app": "web"}, "web")
JWKS = json.dumps({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]})


def read(spec: Any) -> RequestAuthentication:
    (found,) = resources(document("RequestAuthentication", spec)).request_authentications
    return found


def test_every_field_of_a_rule_is_read() -> None:
    found = read(
        {
            "jwtRules": [
                {
                    "issuer": "https://issuer",
                    "audiences": ["a", "b"],
                    "jwksUri": "https://issuer/keys",
                    "fromHeaders": [{"name": "x-jwt", "prefix": "Bearer "}, {"name": "y"}],
                    "fromParams": ["token"],
                    "fromCookies": ["session"],
                    "forwardOriginalToken": True,
                    "outputPayloadToHeader": "x-payload",
                    "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}],
                    "spaceDelimitedClaims": ["groups"],
                    "timeout": "1.5s",
                    "presence": "REQUIRED",
                }
            ]
        }
    )

    assert found.rules == (
        JwtRule(
            "https://issuer",
            ("a", "b"),
            "https://issuer/keys",
            "",
            (FromHeader("x-jwt", "Bearer "), FromHeader("y")),
            ("token",),
            ("session",),
            True,
            "x-payload",
            (("sub", "x-sub"),),
            ("groups",),
            1.5,
            True,
        ),
    )


def test_the_old_name_of_jwks_uri_is_read() -> None:
    assert read({"jwtRules": [{"issuer": "i", "jwks_uri": "http://k"}]}).rules[0].jwks_uri == "http://k"


@pytest.mark.parametrize(
    ("places", "headers", "params", "cookies"),
    [
        ({}, DEFAULT_HEADERS, DEFAULT_PARAMS, ()),
        ({"fromHeaders": [{"name": "x"}]}, (FromHeader("x"),), (), ()),
        ({"fromParams": ["t"]}, (), ("t",), ()),
        ({"fromCookies": ["c"]}, (), (), ("c",)),
    ],
)
def test_a_token_is_looked_for_where_a_rule_says_and_else_where_it_is_customary(
    places: dict[str, Any], headers: Any, params: Any, cookies: Any
) -> None:
    (rule,) = read({"jwtRules": [{"issuer": "i", "jwks": JWKS, **places}]}).rules

    assert (rule.headers, rule.params, rule.from_cookies) == (headers, params, cookies)


def test_the_rules_of_all_resources_that_apply_add_up_the_oldest_first() -> None:
    def made(name: str, issuer: str, namespace: str = "foo", app: str = "web", created: str = "2026") -> str:
        return document(
            "RequestAuthentication",
            {"selector": {"matchLabels": {"app": app}}, "jwtRules": [{"issuer": issuer, "jwks": JWKS}]},
            name=name,
            namespace=namespace,
            creationTimestamp=f"{created}-01-01T00:00:00Z",
        )

    found = resources(
        "---\n".join(
            [
                made("c", "mine"),
                made("b", "of-the-mesh", "istio-system", created="2025"),
                made("a", "of-others", app="other"),
                made("a", "elsewhere", "bar"),
            ]
        )
    )

    assert [rule.issuer for rule in jwt_rules(found, WEB)] == ["of-the-mesh", "mine"]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({}, ".issuer: is missing: name the issuer, or where its keys are (jwksUri)"),
        ({"issuer": ""}, ".issuer: must not be empty"),
        ({"issuer": "i", "jwksUri": "ftp://x"}, ".jwksUri: 'ftp://x' is no address of a key set: http:// or https://"),
        (
            {"issuer": "i", "jwksUri": "https://"},
            ".jwksUri: 'https://' is no address of a key set: http:// or https://",
        ),
        ({"issuer": "i", "jwks": "x"}, '.jwks: is no set of keys (RFC 7517): {"keys": [...]}'),
        ({"issuer": "i", "jwks": "[" * 100_000}, '.jwks: is no set of keys (RFC 7517): {"keys": [...]}'),
        ({"issuer": "i", "jwks": '{"keys": [1]}'}, '.jwks: is no set of keys (RFC 7517): {"keys": [...]}'),
        (
            {"issuer": "i", "jwks": JWKS, "jwksUri": "https://x"},
            ".jwks: only one of jwksUri, jwks_uri, jwks can be set",
        ),
        ({"issuer": "i", "audiences": [""]}, ".audiences[0]: must not be empty"),
        ({"issuer": "i", "audience": ["a"]}, ".audience: is no field of this resource; did you mean audiences?"),
        ({"issuer": "i", "fromHeaders": [{"prefix": "x"}]}, ".fromHeaders[0].name: is missing"),
        ({"issuer": "i", "fromParams": [""]}, ".fromParams[0]: must not be empty"),
        (
            {"issuer": "i", "outputClaimToHeaders": [{"header": "a b", "claim": "c"}]},
            ".outputClaimToHeaders[0].header: 'a b' is no name of a header",
        ),
        ({"issuer": "i", "timeout": "0s"}, ".timeout: '0s' is shorter than 0.001 s"),
        ({"issuer": "i", "presence": "MAYBE"}, ".presence: 'MAYBE' is none of OPTIONAL, REQUIRED"),
    ],
)
def test_what_is_written_wrongly_is_refused(rule: Any, fault: str) -> None:
    assert faults("RequestAuthentication", {"jwtRules": [rule]}) == [f"spec.jwtRules[0]{fault}"]


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        ({}, "spec.jwtRules: names no issuer: no token is asked for, and none is looked at"),
        (
            {"jwtRules": [{"issuer": "me@example.org"}]},
            "spec.jwtRules[0].issuer: 'me@example.org' is no address to find keys at: give jwksUri or jwks",
        ),
        (
            {"jwtRules": [{"issuer": "i", "jwks": '{"keys": [{"kty": "oct", "k": "x"}]}'}]},
            "spec.jwtRules[0].jwks: holds a private or secret key: public keys are all that is needed to verify",
        ),
        (
            {"jwtRules": [{"issuer": "i", "jwks": '{"keys": [{"kty": "EC", "d": "x"}]}'}]},
            "spec.jwtRules[0].jwks: holds a private or secret key: public keys are all that is needed to verify",
        ),
    ],
)
def test_what_will_not_do_what_is_meant_is_warned_of(spec: Any, warning: str) -> None:
    assert faults("RequestAuthentication", spec, "warning") == [warning]


def test_a_secret_key_is_not_shown() -> None:
    spec = {"jwtRules": [{"issuer": "i", "jwks": '{"keys": [{"kty": "oct", "k": "the secret itself"}]}'}]}

    assert "the secret" not in "".join(faults("RequestAuthentication", spec, "warning"))


def test_the_rule_that_names_an_issuer_comes_before_one_for_any() -> None:
    anyone, ann = JwtRule("", jwks_uri="https://k.example"), JwtRule("ann")

    assert rule_of("ann", [anyone, ann]) is ann
    assert rule_of("bob", [anyone, ann]) is anyone
    assert rule_of("bob", [ann]) is None
    assert rule_of(None, [anyone]) is None


def test_claims_with_spaces_between_their_values_are_lists_to_policies() -> None:
    rule = JwtRule("i", space_delimited_claims=("roles", "n"))

    assert rule.as_policies_see({"roles": "a  b", "n": 1, "other": "a b"}) == {
        "roles": ["a", "b"],
        "n": 1,
        "other": "a b",
    }
