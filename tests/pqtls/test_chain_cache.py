"""The cache of verified chains: a hit is the same question, and nothing outlives its answer."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from pqtls.certificates import Purpose
from pqtls.chain_cache import ChainCache
from pqtls.errors import CertificateRefused, ConfigurationError
from pqtls.messages import Certificate, CertificateEntry
from pqtls.signatures import ECDSA_SECP384R1_SHA384, MLDSA87
from pqtls.trust import TrustAnchors
from pqtls.verify import verify_chain
from tests.support import pki
from tests.support.pki import NOW, Issued, root
from tests.support.resumption import Clock, meet

SECOND = datetime.timedelta(seconds=1)
HOUR = datetime.timedelta(hours=1)


def _verify(cache: ChainCache, *chain: Issued, **changes: Any) -> str:
    values: dict[str, Any] = {"trust": pki.trust(), "purpose": Purpose.SERVER, "now": NOW, "schemes": (MLDSA87,)}
    message = Certificate(b"", tuple(CertificateEntry(one.der, {}) for one in chain or (pki.leaf("server"),)))
    return verify_chain(message, cache=cache, **(values | changes)).identity


def test_the_same_question_is_answered_from_the_cache() -> None:
    cache = ChainCache(4)
    assert _verify(cache) == _verify(cache) == pki.identity("server")
    assert (cache.hits, cache.misses) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"trust": pki.trust(root(), pki.root("Another Root"))},
        {"trust": pki.trust_with_crl(pki.leaf("client"))},
        {
            "trust": TrustAnchors.from_pem(
                root().certificate_pem, intermediates=pki.root("Another Root").certificate_pem
            )
        },
        {"purpose": Purpose.CLIENT},
        {"schemes": (MLDSA87, ECDSA_SECP384R1_SHA384)},
        {"now": NOW + HOUR},
    ],
    ids=["roots", "lists", "intermediates", "purpose", "schemes", "hour"],
)
def test_another_question_is_not(other: dict[str, Any]) -> None:
    cache = ChainCache(4)
    _verify(cache)
    _verify(cache, **other)
    assert (cache.hits, cache.misses) == (0, 2)


def test_another_chain_of_the_same_leaf_is_another_question() -> None:
    cache = ChainCache(4)
    _verify(cache)
    _verify(cache, pki.leaf("server"), root())
    assert cache.hits == 0


def test_the_cuts_between_certificates_belong_to_the_question() -> None:
    cache = ChainCache(4)
    keys = {
        cache.key(chain, pki.trust(), Purpose.SERVER, NOW, (MLDSA87,))
        for chain in ((b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""))
    }
    assert len(keys) == 4


def test_another_minute_of_the_same_hour_is_a_hit() -> None:
    cache = ChainCache(4)
    _verify(cache)
    _verify(cache, now=NOW + HOUR - SECOND)
    assert cache.hits == 1


def test_a_certificate_that_ends_within_the_hour_is_not_outlived() -> None:
    short = pki.make_certificate(
        issuer=root(),
        subject="short",
        names=(pki.uri(pki.identity("short")),),
        not_after=NOW + datetime.timedelta(minutes=10),
    )
    cache = ChainCache(4)
    end = NOW + datetime.timedelta(minutes=10)
    _verify(cache, short)
    assert _verify(cache, short, now=end) == pki.identity("short")
    assert cache.hits == 1
    with pytest.raises(CertificateRefused) as caught:
        _verify(cache, short, now=end + SECOND)
    assert caught.value.reason == "expired"
    with pytest.raises(CertificateRefused) as caught:
        _verify(cache, short, now=NOW.replace(hour=12, minute=0) - 2 * pki.DAY)
    assert caught.value.reason == "not_yet_valid"


def test_a_revocation_list_that_ends_within_the_hour_is_not_outlived() -> None:
    end = NOW + datetime.timedelta(minutes=10)
    trust = TrustAnchors.from_pem(
        root().certificate_pem, crls=pki.crl(next_update=end), crl_grace=datetime.timedelta(0)
    )
    cache = ChainCache(4)
    _verify(cache, trust=trust)
    _verify(cache, trust=trust, now=end)
    assert cache.hits == 1
    with pytest.raises(CertificateRefused) as caught:
        _verify(cache, trust=trust, now=end + SECOND)
    assert caught.value.reason == "stale_crl"


def test_a_refusal_is_never_kept() -> None:
    cache = ChainCache(4)
    for _ in range(2):
        with pytest.raises(CertificateRefused):
            _verify(cache, pki.leaf("server", "Another Root"))
    assert (cache.hits, cache.misses) == (0, 2)


def test_the_chain_that_was_used_least_recently_goes() -> None:
    cache = ChainCache(2)
    one, two, three = (pki.leaf(name) for name in ("one", "two", "three"))
    for leaf in (one, two, one, three):
        _verify(cache, leaf)
    assert cache.hits == 1
    _verify(cache, one)
    assert cache.hits == 2
    _verify(cache, two)
    assert cache.hits == 2


def test_a_cache_of_no_capacity_keeps_nothing() -> None:
    cache = ChainCache(0)
    _verify(cache)
    _verify(cache)
    assert (cache.hits, cache.misses) == (0, 2)


def test_a_negative_capacity_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot hold -1 chains"):
        ChainCache(-1)


def test_connections_that_share_a_cache_verify_a_peer_once_and_ask_for_its_identity_each_time() -> None:
    cache, asked = ChainCache(4), list[str]()
    config = pki.client_config(chain_cache=cache, accept_identity=asked.append, now=Clock())
    for _ in range(3):
        met = meet(config, pki.server_config())
        assert met.at_client.peer_identity == pki.identity("server")
    assert (cache.hits, cache.misses) == (2, 1)
    assert asked == [pki.identity("server")] * 3
