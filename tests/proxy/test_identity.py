"""Who is let in by trust domain and by name."""

from __future__ import annotations

import pytest

from pqtls.errors import Alert, IdentityRefused
from proxy.identity import IdentityRule

WEB = "spiffe://cluster.local/ns/default/sa/web"
ANYBODY = IdentityRule(frozenset(), frozenset())


def reason(rule: IdentityRule, uri: str) -> str:
    with pytest.raises(IdentityRefused) as caught:
        rule(uri)
    assert caught.value.alert is Alert.ACCESS_DENIED
    return caught.value.reason


def test_any_valid_identity_is_welcome_without_rules():
    ANYBODY(WEB)
    ANYBODY("spiffe://elsewhere.example/x")


@pytest.mark.parametrize("uri", ["", "https://example.org/", "spiffe://cluster.local", "spiffe://A/b"])
def test_what_is_no_spiffe_id_is_never_welcome(uri):
    assert reason(ANYBODY, uri) == "no_identity"


def test_a_foreign_trust_domain_is_refused_by_name():
    rule = IdentityRule(frozenset({"cluster.local"}), frozenset())
    rule(WEB)
    assert reason(rule, "spiffe://cluster.local.evil.example/ns/default/sa/web") == "foreign_trust_domain"


def test_only_the_listed_peers_are_welcome_where_there_is_a_list():
    rule = IdentityRule(frozenset(), frozenset({WEB}))
    rule(WEB)
    assert reason(rule, WEB + "2") == "unexpected_identity"
