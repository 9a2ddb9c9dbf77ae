"""Tokens: every algorithm from an independent signer, RFC 7515's own examples, and what attackers send instead."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto.tests_mldsa import RFC9964_VECTORS

from mesh.jwks import KeySet, read_key_set
from mesh.jwt import MAX_TOKEN, Claims, JwtRefused, Reason, unverified_issuer, verify
from tests.support import tokens
from tests.support.tokens import ISSUER, NOW, Issuer, base64url, encoded, issuer, key_set

SIGNER = issuer("ES256").named("a")
KEYS = read_key_set(key_set(SIGNER))


def judged(token: str, keys: KeySet = KEYS, audiences: tuple[str, ...] = (), now: float = NOW) -> Claims | JwtRefused:
    return verify(token, keys, ISSUER, audiences, now)


def accepted(token: str, keys: KeySet = KEYS, audiences: tuple[str, ...] = (), now: float = NOW) -> Claims:
    claims = judged(token, keys, audiences, now)
    assert isinstance(claims, Claims), claims
    return claims


def refused(token: str, keys: KeySet = KEYS, audiences: tuple[str, ...] = (), now: float = NOW) -> Reason:
    why = judged(token, keys, audiences, now)
    assert isinstance(why, JwtRefused), why
    assert str(why) == why.detail != ""
    return why.reason


class TestAccepted:
    @pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
    def test_a_token_of_each_algorithm_from_a_signer_that_is_not_the_library(self, algorithm: str) -> None:
        signer = issuer(algorithm).named("a")

        claims = accepted(signer.token(), read_key_set(key_set(signer)))

        assert claims.principal == f"{ISSUER}/alice"

    @pytest.mark.parametrize(
        ("jwk", "token"),
        [
            pytest.param(
                {
                    "kty": "RSA",
                    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4"
                    "d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-"
                    "KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9"
                    "iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
                    "e": "AQAB",
                },
                "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19y"
                "b290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8"
                "W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Q"
                "e7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6Lbg"
                "GY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
                id="RFC 7515 A.2, RS256",
            ),
            pytest.param(
                {
                    "kty": "EC",
                    "crv": "P-256",
                    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                },
                "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19y"
                "b290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
                id="RFC 7515 A.3, ES256",
            ),
        ],
    )
    def test_the_examples_of_the_rfc(self, jwk: dict[str, str], token: str) -> None:
        keys = read_key_set(json.dumps({"keys": [jwk]}).encode())

        claims = verify(token, keys, "joe", (), 1300819379.0)

        assert isinstance(claims, Claims)
        assert claims.values == {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
        assert verify(token, keys, "joe", (), 1300819440.0) == JwtRefused(Reason.EXPIRED, "the token has expired")

    def test_what_a_token_has_proved_is_told(self) -> None:
        claims = accepted(SIGNER.token({"aud": ["shop", "bank"], "azp": "web", "groups": ["a", "b"], "exp": NOW + 0.5}))

        assert (claims.issuer, claims.subject, claims.audiences) == (ISSUER, "alice", ("shop", "bank"))
        assert (claims.presenter, claims.expires_at) == ("web", NOW + 0.5)
        assert claims.values["groups"] == ["a", "b"]

    def test_a_token_without_a_subject_has_no_principal(self) -> None:
        claims = accepted(SIGNER.token({"sub": None}))

        assert (claims.subject, claims.principal) == (None, None)

    @pytest.mark.parametrize("kid", ["a", None])
    def test_the_key_is_found_by_its_name_or_without_one(self, kid: str | None) -> None:
        keys = read_key_set(key_set(issuer("ES256", 1).named("b"), SIGNER, issuer("RS256").named("a")))

        assert accepted(SIGNER.token(header={"kid": kid}), keys)

    def test_a_rule_that_names_no_issuer_takes_any(self) -> None:
        assert isinstance(verify(SIGNER.token({"iss": "joe"}), KEYS, "", (), NOW), Claims)

    def test_where_a_token_says_its_key_is_does_not_matter(self) -> None:
        stranger = issuer("ES256", 1)
        lure = {
            "jwk": stranger.jwk,
            "jku": "https://evil.example/keys",
            "x5u": "https://evil.example/",
            "x5c": ["AA=="],
        }

        assert accepted(SIGNER.token(header=lure))
        assert refused(stranger.token(header={**lure, "kid": "a"})) is Reason.SIGNATURE
        assert refused(stranger.token(header={**lure, "kid": None})) is Reason.UNKNOWN_KEY


class TestAudiences:
    @pytest.mark.parametrize("audience", ["shop", ["bank", "shop"]])
    def test_one_of_a_token_s_must_be_one_of_the_rule_s(self, audience: object) -> None:
        assert accepted(SIGNER.token({"aud": audience}), audiences=("shop", "web"))

    @pytest.mark.parametrize("audience", [None, [], "bank", ["bank"], "shop/", "https://shop", "SHOP", ""])
    def test_another_is_refused_however_much_alike(self, audience: object) -> None:
        assert refused(SIGNER.token({"aud": audience}), audiences=("shop",)) is Reason.AUDIENCE

    def test_a_rule_without_audiences_takes_any(self) -> None:
        assert accepted(SIGNER.token({"aud": "bank"}))

    @pytest.mark.parametrize("audience", [7, True, {"shop": 1}, ["shop", 7], [["shop"]]])
    def test_what_is_no_audience_is_refused(self, audience: object) -> None:
        assert refused(SIGNER.token({"aud": audience}), audiences=("shop",)) is Reason.CLAIMS


class TestTimes:
    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"exp": NOW - 59}, None),
            ({"exp": NOW - 60}, Reason.EXPIRED),
            ({"exp": NOW - 60 + 0.25}, None),
            ({"nbf": NOW + 60}, None),
            ({"nbf": NOW + 61}, Reason.NOT_YET_VALID),
            ({"iat": NOW + 60}, None),
            ({"iat": NOW + 61}, Reason.NOT_YET_VALID),
            ({"exp": 253_402_300_799}, None),
            ({"exp": None}, None),
            ({"exp": 0}, Reason.EXPIRED),
        ],
    )
    def test_clocks_may_differ_by_a_minute(self, claims: dict[str, Any], reason: Reason | None) -> None:
        token = SIGNER.token(claims)

        assert accepted(token) if reason is None else refused(token) is reason

    def test_the_leeway_is_the_caller_s(self) -> None:
        token = SIGNER.token({"exp": NOW - 1})

        assert isinstance(verify(token, KEYS, ISSUER, (), NOW, leeway=0.0), JwtRefused)
        assert isinstance(verify(token, KEYS, ISSUER, (), NOW, leeway=2.0), Claims)

    @pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
    @pytest.mark.parametrize("time", [True, False, "1900000600", [1900000600], {}, -1, 1e300, 10**400, NOW * 1000])
    def test_what_is_no_time_is_refused_and_not_taken_for_no_limit(self, claim: str, time: object) -> None:
        assert refused(SIGNER.token({claim: time})) is Reason.CLAIMS

    @pytest.mark.parametrize("time", [b"null", b"NaN", b"Infinity", b"1e400", b"9" * 5000])
    def test_nor_what_some_readers_take_for_a_number(self, time: bytes) -> None:
        token = SIGNER.signed(b'{"alg":"ES256"}', b'{"iss":"%s","exp":%s}' % (ISSUER.encode(), time))

        assert refused(token) in (Reason.CLAIMS, Reason.MALFORMED)


class TestIssuer:
    @pytest.mark.parametrize("name", ["", "joe", ISSUER + "/", ISSUER.upper(), ISSUER[:-1]])
    def test_another_issuer_is_refused_though_the_key_fits(self, name: str) -> None:
        assert refused(SIGNER.token({"iss": name})) is Reason.ISSUER

    @pytest.mark.parametrize("claim", ["iss", "sub", "azp"])
    @pytest.mark.parametrize("value", [7, True, [ISSUER], {"a": ISSUER}])
    def test_what_is_no_string_is_refused(self, claim: str, value: object) -> None:
        assert refused(SIGNER.token({claim: value})) is Reason.CLAIMS

    def test_null_is_no_string(self) -> None:
        assert refused(SIGNER.signed(b'{"alg":"ES256"}', b'{"iss":null}')) is Reason.CLAIMS

    def test_a_token_without_an_issuer_is_refused(self) -> None:
        assert refused(SIGNER.token({"iss": None})) is Reason.CLAIMS

    def test_the_issuer_can_be_asked_for_before_the_keys_are_known(self) -> None:
        assert unverified_issuer(SIGNER.token()) == ISSUER
        assert unverified_issuer(issuer("RS256", 1).token({"iss": "evil"})) == "evil"

    @pytest.mark.parametrize("token", ["", "a.b.c", SIGNER.token({"iss": 7}), SIGNER.token({"iss": None})], ids="abcd")
    def test_of_a_token_that_has_none_it_is_none(self, token: str) -> None:
        assert unverified_issuer(token) is None


class TestConfusion:
    """RFC 8725 §2.1: the algorithm is the attacker's word, the key is not."""

    @pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", " none", "none\x00", "ＮＯＮＥ"])
    @pytest.mark.parametrize("signature", [b"", b"\x00", b"x" * 64])
    def test_no_algorithm_is_none_in_any_spelling(self, name: str, signature: bytes) -> None:
        head, body = base64url(encoded({"alg": name})), base64url(encoded({"iss": ISSUER}))
        token = b".".join((head, body, base64url(signature))).decode()

        assert refused(token) in (Reason.ALGORITHM, Reason.MALFORMED)

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    @pytest.mark.parametrize("form", ["PEM", "DER", "n", "JWK"])
    def test_a_public_key_is_no_secret_to_make_a_mac_with(self, algorithm: str, form: str) -> None:
        signer = issuer("RS256").named("a")
        secret = as_secret(signer, form)

        def mac(text: bytes) -> bytes:
            return hmac.new(secret, text, getattr(hashlib, f"sha{algorithm[2:]}")).digest()

        forged = Issuer(signer.jwk, algorithm, mac).token()

        assert refused(forged, read_key_set(key_set(signer))) is Reason.ALGORITHM

    def test_a_symmetric_key_that_is_published_verifies_nothing(self) -> None:
        keys = read_key_set(b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}')
        forged = Issuer({}, "HS256", lambda text: hmac.new(b"secret", text, hashlib.sha256).digest()).token()

        assert refused(forged, keys) is Reason.ALGORITHM

    def test_where_keys_have_no_names_a_bad_signature_may_be_that_of_a_key_to_come(self) -> None:
        keys = read_key_set(key_set(issuer("ES256")))

        assert refused(issuer("ES256", 1).token(), keys) is Reason.UNKNOWN_KEY

    @pytest.mark.parametrize("algorithm", ["ES384", "ES512", "RS256", "EdDSA", "ML-DSA-87"])
    def test_a_key_of_one_kind_verifies_no_other(self, algorithm: str) -> None:
        assert refused(issuer(algorithm).token(header={"kid": "a"})) is Reason.UNKNOWN_KEY

    def test_a_key_that_says_which_algorithm_verifies_no_other(self) -> None:
        signer = issuer("RS256")
        keys = read_key_set(json.dumps({"keys": [{**signer.jwk, "alg": "PS256"}]}).encode())

        assert refused(signer.token(), keys) is Reason.UNKNOWN_KEY

    @pytest.mark.parametrize(("said", "signed"), [("RS512", "RS256"), ("PS256", "RS256"), ("RS256", "PS256")])
    def test_a_signature_of_another_algorithm_than_said_is_none(self, said: str, signed: str) -> None:
        signer = issuer(signed).named("a")

        assert refused(signer.token(header={"alg": said}), read_key_set(key_set(signer))) is Reason.SIGNATURE

    def test_a_der_signature_is_none_of_ecdsa_s(self) -> None:
        """RFC 7518 §3.4 has r and s side by side."""
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        def der(text: bytes) -> bytes:
            raw = SIGNER.sign(text)
            return encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))

        assert refused(Issuer(SIGNER.jwk, "ES256", der).token()) is Reason.SIGNATURE

    @pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128])
    def test_a_signature_of_zeros_is_none(self, size: int) -> None:
        """CVE-2022-21449: r = s = 0."""
        token = Issuer(SIGNER.jwk, "ES256", lambda text: bytes(size)).token()

        assert refused(token) in (Reason.SIGNATURE, Reason.MALFORMED)


def as_secret(signer: Issuer, form: str) -> bytes:
    numbers = (int.from_bytes(base64.urlsafe_b64decode(signer.jwk[name] + "==")) for name in ("e", "n"))
    key = rsa.RSAPublicNumbers(*numbers).public_key()
    match form:
        case "n":
            return bytes(signer.jwk["n"], "ascii")
        case "JWK":
            return json.dumps(signer.jwk).encode()
    return key.public_bytes(getattr(serialization.Encoding, form), serialization.PublicFormat.SubjectPublicKeyInfo)


class TestHeaders:
    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ({"crit": ["exp"]}, Reason.MALFORMED),
            ({"crit": []}, Reason.MALFORMED),
            ({"crit": ["b64"], "b64": False}, Reason.MALFORMED),
            ({"b64": False}, Reason.MALFORMED),
            ({"b64": True}, Reason.MALFORMED),
            ({"kid": 7}, Reason.MALFORMED),
            ({"kid": ["a"]}, Reason.MALFORMED),
            ({"kid": "b"}, Reason.UNKNOWN_KEY),
            ({"kid": "../../etc/passwd"}, Reason.UNKNOWN_KEY),
            ({"kid": "' OR 1=1"}, Reason.UNKNOWN_KEY),
            ({"alg": None}, Reason.ALGORITHM),
            ({"alg": ["ES256"]}, Reason.ALGORITHM),
            ({"alg": "es256"}, Reason.ALGORITHM),
            ({"alg": "ECDH-ES"}, Reason.ALGORITHM),
            ({"alg": "dir", "enc": "A256GCM"}, Reason.ALGORITHM),
        ],
    )
    def test_a_header_that_asks_for_something_else_is_refused(self, header: dict[str, Any], reason: Reason) -> None:
        assert refused(SIGNER.token(header=header)) is reason

    def test_a_member_that_is_given_twice_is_refused_wherever_it_is(self) -> None:
        good = encoded({"iss": ISSUER})
        header = b'{"alg":"ES256"}'

        assert accepted(SIGNER.signed(header, good))
        assert refused(SIGNER.signed(b'{"alg":"none","alg":"ES256"}', good)) is Reason.MALFORMED
        assert refused(SIGNER.signed(header, b'{"iss":"joe","iss":"%s"}' % ISSUER.encode())) is Reason.MALFORMED
        assert refused(SIGNER.signed(header, good[:-1] + b',"a":{"b":1,"b":2}}')) is Reason.MALFORMED

    @pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"7", b'"a"', b"{", b"\xff", b"{}x"])
    def test_claims_that_are_no_object_are_refused_though_they_are_signed(self, payload: bytes) -> None:
        assert refused(SIGNER.signed(b'{"alg":"ES256"}', payload)) is Reason.MALFORMED

    def test_deep_claims_are_refused(self) -> None:
        for payload in (b'{"iss":' * 2000, b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"):
            assert refused(SIGNER.signed(b'{"alg":"ES256"}', payload)) is Reason.MALFORMED
            assert refused(SIGNER.signed(payload, b"{}")) is Reason.MALFORMED


class TestForm:
    def test_a_token_has_one_spelling(self) -> None:
        token = SIGNER.token()
        head, body, signature = token.split(".")

        for other in (
            f"{head}.{body}.{signature}=",
            f"{head}.{body}.{signature}==",
            f" {token}",
            f"{token}\n",
            f"{head}.{body}.{signature}.",
            f"{head}.{body}.{signature}.{signature}",
            f".{body}.{signature}",
            f"{head}..{signature}",
            f"{head}.{body}.",
            f"{head}.{body}",
            head,
            "",
            token.replace("-", "+").replace("_", "/") + "+",
            json.dumps({"protected": head, "payload": body, "signature": signature}),
            json.dumps({"payload": body, "signatures": [{"protected": head, "signature": signature}]}),
            token + "é",
        ):
            assert refused(other) is Reason.MALFORMED

    def test_bits_that_mean_nothing_must_be_zero(self) -> None:
        """64 bytes are 86 characters; the last four bits of the last one are not part of them."""
        token = SIGNER.token()
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        for bit in (1, 2, 4, 8):
            assert refused(token[:-1] + alphabet[alphabet.index(token[-1]) ^ bit]) is Reason.MALFORMED

    def test_length_is_bounded(self) -> None:
        claims = {"padding": "x" * (3 * (MAX_TOKEN - len(SIGNER.token())) // 4 - 40)}
        assert accepted(SIGNER.token(claims))

        assert refused(SIGNER.token({"padding": "x" * MAX_TOKEN})) is Reason.MALFORMED

    def test_the_longest_token_is_taken_and_one_character_more_is_not(self) -> None:
        """86 characters are the signature, two the dots: the header and the claims are filled up to the rest."""
        claims = encoded({"iss": ISSUER})
        rest = MAX_TOKEN - 88 - len(base64url(claims))
        token = SIGNER.signed(b'{"alg":"ES256"}'.ljust(rest * 3 // 4), claims)

        assert len(token) == MAX_TOKEN
        assert accepted(token)
        assert "longer than" in str(judged(token + "A"))

    def test_a_refusal_says_nothing_of_what_is_in_the_token(self) -> None:
        for token in (
            SIGNER.token({"exp": 1, "sub": "hunter2"}),
            issuer("ES256", 1).token({"iss": "hunter2"}),
            "hunter2",
        ):
            assert "hunter2" not in repr(judged(token))


class TestFuzz:
    @given(st.text(max_size=100))
    def test_any_text_is_refused(self, text: str) -> None:
        refused(text)
        unverified_issuer(text)

    @given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=70))
    def test_any_parts_are_refused(self, head: bytes, body: bytes, signature: bytes) -> None:
        refused(".".join(base64url(part).decode() for part in (head, body, signature)))

    @given(
        st.dictionaries(
            st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "zip", "x5c"]),
            st.one_of(
                st.none(), st.booleans(), st.integers(), st.sampled_from(["ES256", "none", "HS256", "a"]), st.text()
            ),
        ),
        st.binary(max_size=70),
    )
    def test_any_header_with_any_signature_is_refused(self, header: dict[str, object], signature: bytes) -> None:
        parts = (json.dumps(header).encode(), encoded({"iss": ISSUER}), signature)
        refused(".".join(base64url(part).decode() for part in parts))

    @given(
        st.dictionaries(
            st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "azp"]),
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(-(2**70), 2**70),
                st.floats(allow_nan=False, allow_infinity=False),
                st.sampled_from([ISSUER, NOW, NOW + 10]),
                st.text(max_size=5),
                st.lists(st.text(max_size=3), max_size=3),
            ),
        )
    )
    @settings(max_examples=50)
    def test_whatever_an_issuer_signs_is_judged_and_what_is_accepted_is_in_order(self, claims: dict[str, Any]) -> None:
        found = judged(SIGNER.signed(b'{"alg":"ES256"}', json.dumps(claims).encode()))
        if isinstance(found, Claims):
            assert found.issuer == claims["iss"] == ISSUER
            assert claims.get("exp", NOW) > NOW - 60
            assert max(claims.get("nbf", 0), claims.get("iat", 0)) <= NOW + 60

    @pytest.mark.parametrize("algorithm", ["ES256", "RS256", "Ed25519"])
    def test_a_token_that_lost_its_end_is_refused(self, algorithm: str) -> None:
        signer = issuer(algorithm).named("a")
        keys, token = read_key_set(key_set(signer)), signer.token()
        assert accepted(token, keys)

        for end in range(len(token)):
            refused(token[:end], keys)

    @pytest.mark.parametrize("algorithm", ["ES256", "RS256", "Ed25519"])
    def test_a_token_with_one_byte_changed_is_refused(self, algorithm: str) -> None:
        signer = issuer(algorithm).named("a")
        keys, token = read_key_set(key_set(signer)), signer.token()

        for place, character in enumerate(token):
            for bit in (1, 2, 32):
                refused(token[:place] + chr(ord(character) ^ bit) + token[place + 1 :], keys)

    def test_a_post_quantum_token_with_one_byte_changed_is_refused(self) -> None:
        signer = issuer("ML-DSA-87").named("a")
        keys, token = read_key_set(key_set(signer)), signer.token()
        assert accepted(token, keys)

        for place in range(0, len(token), 61):  # a prime: all parts of the signature have their turn
            refused(token[:place] + chr(ord(token[place]) ^ 1) + token[place + 1 :], keys)
        for end in range(0, len(token), 61):
            refused(token[:end], keys)


@pytest.mark.parametrize("algorithm", sorted(RFC9964_VECTORS))
def test_rfc_9964_s_own_signatures_are_verified(algorithm: str) -> None:
    """Appendix A, as jwcrypto ships it: a key, its thumbprint (§6), and a JWS whose payload is a sentence."""
    vector = RFC9964_VECTORS[algorithm]
    public = base64url(bytes.fromhex(vector["raw_public_key"])).decode()
    key = {"kty": "AKP", "alg": algorithm, "pub": public, "kid": vector["kid"]}
    keys = read_key_set(json.dumps({"keys": [key]}).encode())
    thumbprint = hashlib.sha256(f'{{"alg":"{algorithm}","kty":"AKP","pub":"{public}"}}'.encode()).digest()

    assert base64url(thumbprint).decode() == vector["kid"]
    why = judged(vector["jws"], keys)
    assert isinstance(why, JwtRefused)
    assert "the token's claims cannot be read" in why.detail  # the signature was good: only then are they looked at
    header, payload, signature = vector["jws"].split(".")
    assert refused(f"{header}.{payload[:-1]}A.{signature}", keys) is Reason.SIGNATURE


def test_a_sidecar_that_decides_connections_does_not_load_the_library() -> None:
    program = "import sys, mesh.decision, mesh.documents; print('jwcrypto' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.strip() == "False"
