"""The function that opens a sealed key for the sidecar; tests/proxy/test_credential_files.py opens real ones."""

from __future__ import annotations

import pytest

from cli.sealed import open_sealed_key
from mesh.errors import UserError


def test_what_cannot_be_opened_is_one_line_without_the_key():
    for identity, said in (("http://web", "no SPIFFE identity"), ("spiffe://a/b", "the ML-KEM key cannot be read")):
        with pytest.raises(UserError, match=said) as refused:
            open_sealed_key(b"s3cr3t", b"QBSEAL", identity, "tls.key")
        assert "s3cr3t" not in str(refused.value)
