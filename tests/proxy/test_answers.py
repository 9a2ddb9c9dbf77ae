"""What is read out of an answer; tests/proxy/test_authority.py sends the wrong ones over the wire."""

from __future__ import annotations

import itertools
import json

import pytest

from proxy.answers import AuthorityFailed, Failure, read_issued, read_published, read_refusal

BUNDLE = {"files": {"ca.crt": "roots"}, "etag": "e", "generation": "g", "round": 7, "unknown": [1]}
ISSUED = {"certificate": "pem", "generation": "g", "bundle": BUNDLE, "identity": "ignored"}


def encoded(document, **changes) -> bytes:
    return json.dumps({name: value for name, value in (document | changes).items() if value is not ...}).encode()


def test_what_is_not_known_is_passed_over():
    published = read_published(encoded(BUNDLE))
    assert (published.trust.roots, published.trust.intermediates, published.trust.crls) == (b"roots", b"", b"")
    assert (published.etag, published.generation, published.round) == ("e", "g", 7)
    issued = read_issued(encoded(ISSUED))
    assert (issued.chain, issued.generation, issued.published) == (b"pem", "g", published)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *itertools.product(["etag", "generation", "files"], [..., None, 7, "", []]),
        *itertools.product(["round"], [..., None, True, -1, 1.0, 1 << 53, "1"]),
    ],
)
def test_a_bundle_without_a_member_of_its_type_is_of_no_use(member, value):
    with pytest.raises(AuthorityFailed, match=member) as failed:
        read_published(encoded(BUNDLE, **{member: value}))
    assert failed.value.failure is Failure.INVALID


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{", b"[" * 200_000, b"null"])
def test_what_is_no_object_is_of_no_use(content):
    for read in (read_issued, read_published):
        with pytest.raises(AuthorityFailed, match="no JSON"):
            read(content)
    assert read_refusal(500, content) == "with status 500"


def test_a_refusal_is_printable_and_bounded():
    said = read_refusal(403, json.dumps({"error": "revoked", "message": "gone\n\x1b[2J" + "x" * 10_000}).encode())
    assert said.startswith("revoked: gone\\n")
    assert said.isprintable()
    assert len(said) <= 400
