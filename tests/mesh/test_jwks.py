"""Key sets: what a key may verify, which keys are passed over, and nothing else that strangers may publish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.jwks import ALGORITHMS, MAX_KEY_SET, MAX_KEYS, KeySet, KeySetRefused, read_key_set
from tests.support import tokens
from tests.support.tokens import issuer, key_set, of_rsa

RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def read(*entries: object) -> KeySet:
    return read_key_set(json.dumps({"keys": entries}).encode())


def public(algorithm: str, **more: object) -> dict[str, Any]:
    return {**issuer(algorithm).jwk, **more}


class TestAlgorithms:
    @pytest.mark.parametrize(
        ("algorithm", "possible"),
        [
            ("RS256", RSA_ALGORITHMS),
            ("ES256", {"ES256"}),
            ("ES384", {"ES384"}),
            ("ES512", {"ES512"}),
            ("Ed25519", {"EdDSA", "Ed25519"}),
            ("Ed448", {"EdDSA", "Ed448"}),
            ("ML-DSA-44", {"ML-DSA-44"}),
            ("ML-DSA-65", {"ML-DSA-65"}),
            ("ML-DSA-87", {"ML-DSA-87"}),
        ],
    )
    def test_a_key_s_type_and_curve_say_what_it_can_verify(self, algorithm: str, possible: set[str]) -> None:
        (key,) = read(public(algorithm)).keys

        assert key.algorithms == possible

    @pytest.mark.parametrize("algorithm", [name for name in tokens.ALGORITHMS if not name.startswith("Ed")])
    def test_its_alg_cuts_that_down_to_one(self, algorithm: str) -> None:
        (key,) = read(public(algorithm, alg=algorithm)).keys

        assert key.algorithms == {algorithm}

    @pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
    def test_the_two_names_of_one_algorithm_are_one(self, name: str) -> None:
        (key,) = read(public("Ed25519", alg=name)).keys

        assert key.algorithms == {"EdDSA", "Ed25519"}

    def test_no_algorithm_is_symmetric_or_none(self) -> None:
        assert set(tokens.ALGORITHMS) == ALGORITHMS


class TestPassedOver:
    @pytest.mark.parametrize(
        ("entry", "why"),
        [
            ("key", "no object"),
            (None, "no object"),
            ({}, "kty"),
            ({"kty": "PQC"}, "kty"),
            ({"kty": ["RSA"]}, "kty"),
            ({"kty": "oct", "k": "c2VjcmV0"}, "symmetric"),
            (public("RS256", use="enc"), "use"),
            (public("RS256", use=None), "use"),
            (public("RS256", key_ops=["sign"]), "key_ops"),
            (public("RS256", key_ops="verify"), "key_ops"),
            (public("RS256", key_ops=None), "key_ops"),
            (public("RS256", d="AQAB"), "private"),
            (public("ML-DSA-87", priv="A" * 43), "private"),
            (public("RS256", alg="HS256"), "alg"),
            (public("RS256", alg="none"), "alg"),
            (public("RS256", alg="ES256"), "alg"),
            (public("RS256", alg=None), "alg"),
            (public("RS256", alg=["RS256"]), "alg"),
            (public("RS256", alg="RSA-OAEP"), "alg"),
            (public("ES256", alg="ES384"), "alg"),
            (public("ES256", alg="HS256"), "alg"),
            (public("ML-DSA-65", alg="ML-DSA-87"), "no public key"),
            (public("ML-DSA-65", alg="EdDSA"), "alg"),
            ({name: value for name, value in public("ML-DSA-65").items() if name != "alg"}, "RFC 9964"),
            (public("ES256", crv="P-384"), "no public key"),
            (public("ES256", crv="secp256k1"), "curve"),
            (public("ES256", crv=1), "curve"),
            (public("Ed25519", crv="X25519"), "curve"),
            (public("Ed25519", crv="Ed448"), "no public key"),
            (public("Ed25519", x="AAAA"), "no public key"),
            (public("ES256", x="AAAA"), "no public key"),
            (public("ES256", y=public("ES256")["x"]), "no public key"),
            (public("RS256", n="A*A"), "member n"),
            (public("RS256", n=""), "member n"),
            (public("RS256", n=7), "member n"),
            (public("RS256", e="AA"), "no public key"),
            (public("RS256", e="AQAA"), "no public key"),
            (public("RS256", e="A"), "no public key"),
            (public("RS256", e="_" * 8), "exponent"),
            (public("RS256", n="_" * 1600), "9600 bits"),
            (public("RS256", kid=7), "kid"),
            (public("RS256", kid="k" * 513), "kid"),
            (public("ML-DSA-87", pub="AAAA"), "no public key"),
            (public("ML-DSA-87", pub=None), "member pub"),
        ],
    )
    def test_a_key_that_is_of_no_use_is_noted_and_the_others_are_read(self, entry: object, why: str) -> None:
        found = read(entry, public("ES256", kid="good"))

        assert [key.kid for key in found.keys] == ["good"]
        assert len(found.notes) == 1
        assert found.notes[0].startswith("keys[0]: ")
        assert why in found.notes[0]

    def test_a_short_rsa_key_is_passed_over(self) -> None:
        assert "1024 bits" in read(of_rsa("RS256", 1024).jwk).notes[0]

    def test_each_bound_is_the_last_that_is_taken(self) -> None:
        longest = tokens.number(2**8191 + 1)
        longer = tokens.number(2**8192 + 1)

        assert read(public("RS256", n=longest, e=tokens.number(2**32 - 1), kid="k" * 512)).keys
        assert "8193 bits; 2048 to 8192" in read(public("RS256", n=longer)).notes[0]
        assert "exponent" in read(public("RS256", e=tokens.number(2**32 + 1))).notes[0]
        assert len(read(*[public("ES256")] * MAX_KEYS).keys) == MAX_KEYS
        assert read_key_set(key_set(issuer("ES256")).ljust(MAX_KEY_SET)).keys

    def test_what_a_key_has_beside_itself_is_ignored(self) -> None:
        entry = public(
            "RS256", kid="a", use="sig", key_ops=["verify"], x5c=["!"], x5t="?", x5u="file:///etc/passwd", other={}
        )

        assert [key.kid for key in read(entry).keys] == ["a"]

    def test_nothing_secret_is_in_what_is_shown(self) -> None:
        found = read(public("RS256", d="hunter2"), {"kty": "oct", "k": "hunter2"}, public("ES256", kid="a"))

        assert "hunter2" not in repr(found)
        assert public("ES256")["x"] not in repr(found)


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (b"", "not JSON"),
            (b"<html>", "not JSON"),
            (b"[]", "not an object"),
            (b"{}", "no list"),
            (b'{"keys": {}}', "no list"),
            (b'{"keys": [], "keys": []}', "twice"),
            (b'{"keys": [' + b"[" * 50 + b"]" * 50 + b"]}", "deep"),
            pytest.param(b" " * (MAX_KEY_SET + 1), "at most", id="too long"),
            pytest.param(json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(), "at most", id="too many"),
        ],
    )
    def test_what_is_no_key_set_is_refused(self, text: bytes, why: str) -> None:
        with pytest.raises(KeySetRefused, match=why):
            read_key_set(text)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_key_set_or_refused(self, text: bytes) -> None:
        try:
            assert read_key_set(text).keys == ()
        except KeySetRefused as refused:
            assert str(refused)

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "pub", "d"]),
                st.one_of(
                    st.none(),
                    st.integers(),
                    st.sampled_from(["RSA", "EC", "OKP", "AKP", "oct", "P-256", "Ed25519", "ML-DSA-87", "sig", "AQAB"]),
                    st.text(max_size=8),
                    st.lists(st.text(max_size=4), max_size=2),
                ),
            ),
            max_size=5,
        )
    )
    def test_any_keys_are_read_or_noted(self, entries: list[Mapping[str, object]]) -> None:
        found = read(*entries)

        assert len(found.keys) + len(found.notes) == len(entries)

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "Ed25519"])
    def test_each_byte_of_a_key_set_may_be_lost_or_changed(self, algorithm: str) -> None:
        text = key_set(issuer(algorithm).named("a"))
        spoilt = [text[:end] for end in range(len(text))]
        spoilt += [
            text[:place] + bytes((text[place] ^ bit,)) + text[place + 1 :]
            for place in range(len(text))
            for bit in (1, 64)
        ]
        for one in spoilt:
            try:
                assert isinstance(read_key_set(one), KeySet)
            except KeySetRefused as refused:
                assert str(refused)


class TestCandidates:
    keys = read(public("ES256", kid="a"), public("ES256", kid="b"), public("ES256"), public("ES384", kid="a"))

    @pytest.mark.parametrize(
        ("kid", "algorithm", "expected"),
        [
            ("a", "ES256", ["a", None]),
            ("b", "ES256", ["b", None]),
            ("c", "ES256", [None]),
            (None, "ES256", ["a", "b", None]),
            ("a", "ES384", ["a"]),
            ("b", "ES384", []),
            (None, "RS256", []),
        ],
    )
    def test_a_key_is_found_by_its_name_and_what_it_can_verify(
        self, kid: str | None, algorithm: str, expected: list[str | None]
    ) -> None:
        assert [key.kid for key in self.keys.candidates(kid, algorithm)] == expected


@settings(max_examples=20)
@given(st.integers(1, 2**64))
def test_any_exponent_is_taken_or_noted(exponent: int) -> None:
    found = read(public("RS256", e=tokens.number(exponent)))

    assert len(found.keys) + len(found.notes) == 1
    assert not found.keys or (exponent % 2 == 1 and 3 <= exponent < 2**32)
