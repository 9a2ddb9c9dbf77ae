"""RequestAuthentication."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.building.request_authentication import JwtRule, request_authentication
from tests.support.built import assert_good

ISSUER = "https://auth.example.com"
PUBLIC = {"keys": [{"kty": "AKP", "alg": "ML-DSA-87", "kid": "1", "pub": "AQAB"}]}


def test_an_issuer_s_tokens_are_believed_by_some_pods() -> None:
    rule = JwtRule(ISSUER, jwks_uri=f"{ISSUER}/.well-known/jwks.json", audiences=["api.example.com"])
    made = request_authentication("api", "shop", [rule], selector={"app": "api"})

    assert made["spec"] == {
        "selector": {"matchLabels": {"app": "api"}},
        "jwtRules": [
            {
                "issuer": ISSUER,
                "jwksUri": "https://auth.example.com/.well-known/jwks.json",
                "audiences": ["api.example.com"],
            }
        ],
    }
    assert_good(made)


@pytest.mark.parametrize("keys", [PUBLIC, json.dumps(PUBLIC, indent=2)])
def test_a_key_set_is_written_as_compact_text(keys: Any) -> None:
    made = JwtRule(ISSUER, jwks=keys).as_dict()

    assert made["jwks"] == '{"keys":[{"kty":"AKP","alg":"ML-DSA-87","kid":"1","pub":"AQAB"}]}'


def test_tokens_are_looked_for_where_it_is_said() -> None:
    made = JwtRule(
        ISSUER,
        from_headers=[{"name": "x-token", "prefix": "JWT "}, {"name": "authorization"}],
        from_params=["token"],
        from_cookies=["session"],
        forward_original_token=True,
        output_payload_to_header="x-payload",
        output_claim_to_headers={"x-user": "sub"},
        timeout=2,
    ).as_dict()

    assert made == {
        "issuer": ISSUER,
        "fromHeaders": [{"name": "x-token", "prefix": "JWT "}, {"name": "authorization"}],
        "fromParams": ["token"],
        "fromCookies": ["session"],
        "outputPayloadToHeader": "x-payload",
        "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
        "forwardOriginalToken": True,
        "timeout": "2s",
    }


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"issuer": ""}, "issuer"),
        ({"issuer": None}, "issuer"),
        ({"jwks_uri": "ftp://auth.example.com/keys"}, "jwks_uri"),
        ({"jwks_uri": "auth.example.com"}, "jwks_uri"),
        ({"jwks_uri": "https://"}, "jwks_uri"),
        ({"jwks_uri": "https://user@auth.example.com/"}, "jwks_uri"),
        ({"jwks_uri": "https://auth.example.com:0/"}, "jwks_uri"),
        ({"jwks_uri": "https://auth.example.com:65536/"}, "jwks_uri"),
        ({"jwks_uri": "https://auth.example.com/a b"}, "jwks_uri"),
        ({"jwks_uri": "https://auth.example.com/" + "a" * 2048}, "jwks_uri"),
        ({"jwks_uri": "https://a/", "jwks": PUBLIC}, "jwks"),
        ({"issuer": "auth"}, "jwks_uri"),
        ({"jwks": "{"}, "jwks"),
        ({"jwks": "[]"}, "jwks"),
        ({"jwks": {"keys": []}}, "jwks"),
        ({"jwks": {"keys": ["a"]}}, "jwks"),
        ({"jwks": {"keys": [{"kty": "RSA", "n": b"a"}]}}, "jwks"),
        ({"jwks": "[" * 100_000}, "jwks"),
        ({"jwks": {"keys": [{"kty": "RSA", "n": "a" * (1 << 18)}]}}, "jwks"),
        ({"audiences": "api"}, "audiences"),
        ({"audiences": [""]}, r"audiences\[0\]"),
        ({"from_headers": []}, "from_headers"),
        ({"from_headers": ["x-token"]}, r"from_headers\[0\]"),
        ({"from_headers": [{"prefix": "a"}]}, r"from_headers\[0\]"),
        ({"from_headers": [{"name": "a b"}]}, r"from_headers\[0\].name"),
        ({"from_params": [1]}, r"from_params\[0\]"),
        ({"from_cookies": ["a;b"]}, r"from_cookies\[0\]"),
        ({"output_payload_to_header": ""}, "output_payload_to_header"),
        ({"output_claim_to_headers": {"a b": "sub"}}, "output_claim_to_headers"),
        ({"output_claim_to_headers": {"a": ""}}, r"output_claim_to_headers\['a'\]"),
        ({"forward_original_token": 1}, "forward_original_token"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        JwtRule(**{"issuer": ISSUER} | wrong)


@pytest.mark.parametrize("part", ["d", "p", "k", "priv"])
def test_a_private_key_is_refused_and_not_shown(part: str) -> None:
    with pytest.raises(ValueError, match=r"^jwks: a key in it is private or shared") as refusal:
        JwtRule(ISSUER, jwks={"keys": [{"kty": "RSA", part: "c2VjcmV0"}]})

    assert "c2VjcmV0" not in str(refusal.value)


def test_a_shared_key_is_refused_whatever_it_says() -> None:
    with pytest.raises(ValueError, match=r"^jwks: a key in it is private or shared"):
        JwtRule(ISSUER, jwks={"keys": [{"kty": "oct"}]})


def test_rules_are_needed() -> None:
    with pytest.raises(ValueError, match=r"^jwt_rules: "):
        request_authentication("api", "shop", [])
    with pytest.raises(ValueError, match=r"^jwt_rules\[0\]: .* give a JwtRule"):
        request_authentication("api", "shop", [{"issuer": ISSUER}])  # type: ignore[list-item]
