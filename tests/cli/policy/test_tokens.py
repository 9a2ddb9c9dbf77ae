"""What a sidecar would believe of a token."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.policy.tokens import NONE, believed
from mesh.errors import UserError
from mesh.request_authentication import JwtRule

RULE = JwtRule("https://a.example", jwks='{"keys": []}')
CLAIMS = '{"iss": "https://a.example", "sub": "ann"}'


def test_without_a_token_there_is_none_unless_one_is_wanted() -> None:
    assert believed(None, None, [RULE], 0.0) is NONE
    wanted = believed(None, None, [JwtRule("https://a.example", required=True)], 0.0)
    assert (wanted.refused, wanted.words) == (True, "none, and the workload wants one of https://a.example: 401")


def test_a_token_of_somebody_else_is_refused_where_tokens_are_looked_at() -> None:
    refused = believed('{"iss": "b"}', None, [RULE], 0.0)
    assert (refused.refused, refused.words) == (
        True,
        "of 'b', which no RequestAuthentication of the workload names: 401",
    )
    ignored = believed('{"iss": "b"}', None, [], 0.0)
    assert (ignored.refused, ignored.claims) == (False, None)


def test_claims_may_stand_in_a_file_or_come_by_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "claims").write_text(f"\n {CLAIMS}")
    monkeypatch.setattr(sys, "stdin", io.StringIO(CLAIMS))

    for given_as in (CLAIMS, str(tmp_path / "claims"), "-"):
        assert believed(given_as, None, [RULE], 0.0).claims == {"iss": "https://a.example", "sub": "ann"}


def test_a_rule_for_any_issuer_takes_a_token_that_names_one() -> None:
    rule = JwtRule("", jwks_uri="https://k.example", space_delimited_claims=("roles",))

    assert believed('{"iss": "b", "roles": "x y"}', None, [rule], 0.0).claims == {"iss": "b", "roles": ["x", "y"]}
    assert believed('{"sub": "b"}', None, [rule], 0.0).refused


def test_what_is_no_token_is_refused_where_tokens_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("nonsense")

    assert believed(str(tmp_path / "token"), None, [RULE], 0.0).refused
    assert not believed(str(tmp_path / "token"), None, [], 0.0).refused


def test_keys_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2EuZXhhbXBsZSJ9.AA")

    with pytest.raises(UserError, match=r"the keys of https://a\.example cannot be used"):
        believed(str(tmp_path / "token"), str(tmp_path / "token"), [RULE], 0.0)


@pytest.mark.parametrize("text", ["{", '{"a": }', "{" * 100_000])
def test_claims_that_are_no_json_are_one_line(text: str) -> None:
    with pytest.raises(UserError, match="the claims are no JSON object"):
        believed(text, None, [RULE], 0.0)


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")

    with pytest.raises(UserError, match="this one is no text"):
        believed(str(tmp_path / "token"), None, [RULE], 0.0)


CLAIM = st.none() | st.integers() | st.text() | st.lists(st.text())


@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub"]), CLAIM))
def test_no_claims_make_it_fail(claims: dict[str, object]) -> None:
    believed(json.dumps(claims), None, [JwtRule("x", audiences=("y",)), RULE], 0.0)
