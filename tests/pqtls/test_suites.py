"""The table of cipher suites."""

from __future__ import annotations

import hashlib

import pytest

from pqtls.suites import CIPHER_SUITES, CipherSuite


def test_the_suites_have_the_code_points_of_rfc_8446() -> None:
    rows = {code: (suite.name, suite.key_length, suite.hash_name) for code, suite in CIPHER_SUITES.items()}
    assert rows == {
        0x1302: ("TLS_AES_256_GCM_SHA384", 32, "sha384"),
        0x1301: ("TLS_AES_128_GCM_SHA256", 16, "sha256"),
        0x1303: ("TLS_CHACHA20_POLY1305_SHA256", 32, "sha256"),
    }


@pytest.mark.parametrize("suite", CIPHER_SUITES.values(), ids=lambda suite: suite.name)
def test_the_hash_has_the_length_that_is_said(suite: CipherSuite) -> None:
    assert hashlib.new(suite.hash_name).digest_size == suite.hash_length


@pytest.mark.parametrize("suite", CIPHER_SUITES.values(), ids=lambda suite: suite.name)
def test_a_key_is_changed_before_the_limit_of_section_5_5(suite: CipherSuite) -> None:
    limit = 2**24.5 if suite.aead == "AES-GCM" else 2**64
    assert suite.records_per_key < limit
