"""The defaults of an authority that stands alone."""

from __future__ import annotations

from typing import Any

from certmgr.parts import Parts, always
from certmgr.proofs import NoTokens


def test_alone_it_leads_takes_no_foreign_tokens_and_has_no_chores() -> None:
    nothing: Any = object()
    parts = Parts(store=nothing, journal=nothing, replica="one")

    assert parts.is_leader is always
    assert parts.is_leader()
    assert isinstance(parts.tokens, NoTokens)
    assert parts.chores == ()
