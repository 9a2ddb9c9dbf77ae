"""What a connection to a peer is held to, and what may not be shared between two ways."""

from __future__ import annotations

import pytest

from pqtls import PROFILES
from pqtls.errors import IdentityRefused
from proxy.config import Endpoint
from proxy.identity import IdentityRule
from proxy.peers.via import Pinned, Via

WHERE = Endpoint("10.0.0.1", 80)
RULE = IdentityRule(frozenset({"cluster.local"}), frozenset())
API, WEB = "spiffe://cluster.local/ns/default/sa/api", "spiffe://cluster.local/ns/default/sa/web"


def test_where_nothing_is_asked_for_the_configuration_stays_the_very_same(pki):
    config = pki.bundle("web").tunnel_client
    assert Via(WHERE).configured(config, RULE) is config


def test_pins_and_a_profile_replace_what_the_sidecar_takes(pki):
    config = pki.bundle("web").tunnel_client
    asked = Via(WHERE, frozenset({API}), "compat").configured(config, RULE)
    assert asked.profiles == (PROFILES["compat"],)
    assert asked.alpn == config.alpn
    asked.accept_identity(API)
    with pytest.raises(IdentityRefused):
        asked.accept_identity(WEB)


def test_a_pin_never_lets_in_whom_the_sidecar_itself_does_not():
    foreign = "spiffe://elsewhere.example/ns/default/sa/api"
    with pytest.raises(IdentityRefused) as refused:
        Pinned(RULE, frozenset({foreign}), WHERE)(foreign)
    assert refused.value.reason == "foreign_trust_domain"


def test_an_identity_that_is_not_pinned_is_unexpected():
    with pytest.raises(
        IdentityRefused, match=r"the peer at 10\.0\.0\.1:80 is .*sa/web, .* expects .*sa/api there"
    ) as refused:
        Pinned(RULE, frozenset({API}), WHERE)(WEB)
    assert refused.value.reason == "unexpected_identity"


def test_tunnels_and_sessions_made_under_other_pins_are_others():
    pinned, other, none = (Via(WHERE, frozenset(pins)) for pins in ({API}, {WEB}, ()))
    assert len({pinned, other, none, Via(WHERE, by_stream=True), Via(WHERE, profile="compat")}) == 5
    assert len({via.sessions_key(RULE) for via in (pinned, other, none, Via(WHERE, profile="compat"))}) == 4


def test_a_pin_to_a_namespace_takes_every_service_account_of_it_and_nobody_else() -> None:
    pinned = Pinned(RULE, frozenset({"spiffe://cluster.local/ns/shop/sa/*"}), WHERE)

    pinned("spiffe://cluster.local/ns/shop/sa/web")
    for other in (
        "spiffe://cluster.local/ns/bank/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web/more",
        "spiffe://cluster.local/ns/shop/other/web",
        "spiffe://cluster.local/ns/shop/sa",
    ):
        with pytest.raises(IdentityRefused):
            pinned(other)
