"""The seam to whatever keeps the authority's state."""

from __future__ import annotations

from certmgr.store import Stored


def test_what_is_stored_does_not_show_the_keys_in_it() -> None:
    assert "KEY" not in repr(Stored(b"-----BEGIN PRIVATE KEY-----", "7"))
