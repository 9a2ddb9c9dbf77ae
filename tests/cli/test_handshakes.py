"""The pair that is measured: its handshakes are what they are called."""

from __future__ import annotations

import pytest

import pqtls
from cli.handshakes import EnginePair, make_identity, utc_now
from pqtls.profiles import HYBRID_L5, QBITEL
from pqtls.provider_cryptography import PROVIDER


@pytest.fixture(scope="module")
def identity():
    return make_identity(utc_now())


def test_a_full_handshake_carries_both_certificates_and_a_resumed_one_none(identity):
    pair = EnginePair(identity, QBITEL, PROVIDER, tickets=True)
    pair.full()
    full = pair.sent
    client, server = pair.resumed()
    assert min(full) > 12_000
    assert max(pair.sent) < 3_000
    assert client.handshake_complete
    assert server.handshake_complete


def test_resumed_handshakes_can_be_made_again_and_again(identity):
    pair = EnginePair(identity, HYBRID_L5, PROVIDER, tickets=True)
    for _ in range(3):
        pair.resumed()


def test_without_tickets_nothing_can_be_resumed(identity):
    with pytest.raises(pqtls.MisuseError, match="without tickets"):
        EnginePair(identity, QBITEL, PROVIDER).resumed()


def test_a_session_that_the_server_did_not_take_is_no_measurement(identity):
    pair, other = (EnginePair(identity, QBITEL, PROVIDER, tickets=True) for _ in range(2))
    pair.full()
    other.full()
    pair._sessions = other._sessions
    with pytest.raises(pqtls.MisuseError, match="was not resumed"):
        pair.resumed()


def test_the_chain_cache_is_off_unless_it_is_asked_for(identity):
    for capacity, hits in ((0, 0), (8, 2)):
        pair = EnginePair(identity, QBITEL, PROVIDER, cached_chains=capacity)
        pair.full()
        pair.full()
        # Two ends, whose purposes differ, twice: the second handshake finds both, the first none.
        assert pair._client.chain_cache.hits == hits
