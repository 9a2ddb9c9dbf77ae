"""What a token says."""

from __future__ import annotations

import pytest

from mesh.claims import RequestPrincipals, claim_texts


@pytest.mark.parametrize(
    ("value", "issuer", "subject", "matches"),
    [
        ("i/s", "i", "s", True),
        ("i/s", "i", "x", False),
        ("https://i/x/s", "https://i/x", "s", True),
        ("*", "i", "s", True),
        ("*", "i", "", False),
        ("*", "", "s", False),
        ("i/*", "i", "s", True),
        ("i/*", "x", "s", False),
        ("i/s*", "i", "st", True),
        ("*/s", "i", "s", True),
        ("*/s", "", "s", False),
        ("*i/s", "xi", "s", True),
        ("*s", "whoever", "xs", True),
        ("i*", "ix", "anyone", True),
        ("i", "i", "s", False),
        ("*/*", "i", "*", True),
        ("*/*", "i", "s", False),
    ],
)
def test_principals_of_tokens(value: str, issuer: str, subject: str, matches: bool) -> None:
    assert RequestPrincipals.of([value]).match({"iss": issuer, "sub": subject}) is matches


@pytest.mark.parametrize("claims", [{}, {"iss": "i"}, {"sub": "s"}, {"iss": 1, "sub": "s"}, {"iss": ["i"], "sub": "s"}])
def test_a_token_without_issuer_or_subject_is_of_nobody(claims: dict[str, object]) -> None:
    assert not RequestPrincipals.of(["*", "i/*", "*s"]).match(claims)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("a",), ("x",)),
        (("l",), ("x", "y")),
        (("m", "n"), ("z",)),
        (("m",), ()),
        (("n",), ()),
        (("b",), ()),
        (("a", "x"), ()),
        (("none",), ()),
        (("scope",), ("read", "write")),
        (("m", "scope"), ("read write",)),
    ],
)
def test_the_texts_of_a_claim(path: tuple[str, ...], found: tuple[str, ...]) -> None:
    claims = {
        "a": "x",
        "l": ["x", 1, "y", None],
        "m": {"n": "z", "scope": "read write"},
        "n": 7,
        "b": True,
        "scope": "read  write ",
    }

    assert claim_texts(claims, path) == found
