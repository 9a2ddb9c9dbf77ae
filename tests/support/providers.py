"""The providers that are present: `cryptography` always, liboqs where its library and its wrapper are."""

from __future__ import annotations

import os
from functools import cache

import pytest

from pqtls.provider import CryptoProvider
from pqtls.provider_cryptography import PROVIDER
from pqtls.provider_liboqs import LiboqsProvider
from proxy.providers import LiboqsAbsent, load_liboqs


@cache
def _liboqs() -> LiboqsProvider | str:
    try:
        return load_liboqs(os.environ)
    except LiboqsAbsent as reason:
        return str(reason)


def liboqs() -> LiboqsProvider:
    """The provider over liboqs; the test is skipped where there is none."""
    found = _liboqs()
    if isinstance(found, str):
        pytest.skip(f"no liboqs: {found}")
    return found


def present(name: str) -> CryptoProvider:
    """The provider of this name; the test is skipped where it is not there."""
    return PROVIDER if name == "cryptography" else liboqs()
