"""The words that a refusal is made of."""

from __future__ import annotations

import asyncio

import pytest

from certmgr.proofs import NoTokens, Reason, Refused


def test_each_reason_has_a_slug_of_its_own_and_a_status_that_says_whose_fault_it_is() -> None:
    slugs = [reason.slug for reason in Reason]

    assert len(set(slugs)) == len(slugs)
    assert all(slug.replace("_", "").isalpha() and slug == slug.lower() for slug in slugs)
    assert {reason for reason in Reason if reason.status >= 500} == {
        Reason.VERIFIER_UNAVAILABLE,
        Reason.AUTHORITY_UNAVAILABLE,
    }


def test_without_a_verifier_a_token_is_refused_and_does_not_stand_in_the_message() -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(NoTokens().identify("eyJhbGciOi.secret.part"))

    assert refused.value.reason is Reason.TOKEN_REFUSED
    assert "bootstrap token" in str(refused.value)
    assert "secret" not in str(refused.value)
