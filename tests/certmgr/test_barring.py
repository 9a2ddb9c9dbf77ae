"""Bars as values: who gets nothing, since when, and how that ends."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509

from certmgr.barring import bar, check_not_barred, find_bar, lift
from certmgr.founding import new_state
from certmgr.proofs import Reason, Refused
from certmgr.state import MAX_BARRED, AuthorityState, Barred
from certmgr.tokens import add_token, find_token, spend_token
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
WEB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")
DB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/db")


@pytest.fixture(scope="module")
def fresh() -> AuthorityState:
    return new_state("CN=Example", "cluster.local", NOON)


def test_who_is_barred_is_refused_until_it_is_lifted_and_nobody_else(fresh: AuthorityState) -> None:
    check_not_barred(fresh, WEB)
    state = bar(fresh, WEB, NOON, reason=x509.ReasonFlags.key_compromise)

    assert find_bar(state, WEB) == Barred(WEB, NOON, x509.ReasonFlags.key_compromise)
    with pytest.raises(Refused, match="barred since 2030-05-17T12:00:00Z") as caught:
        check_not_barred(state, WEB)
    assert (caught.value.reason, caught.value.identity) == (Reason.BARRED, WEB)
    check_not_barred(state, DB)
    assert lift(state, WEB) == fresh


def test_barring_again_keeps_the_first_time_and_reason(fresh: AuthorityState) -> None:
    state = bar(fresh, WEB, NOON)
    assert bar(state, WEB, NOON + HOUR, reason=x509.ReasonFlags.key_compromise) is state


def test_tokens_of_the_identity_are_forgotten_spent_or_not_and_others_stay(fresh: AuthorityState) -> None:
    state = add_token(fresh, "a" * 40, WEB, [], NOON + HOUR, NOON)
    state = add_token(state, "b" * 40, WEB, [], NOON + HOUR, NOON)
    state = add_token(state, "c" * 40, DB, [], NOON + HOUR, NOON)
    state = spend_token(state, find_token(state, "b" * 40, NOON), "ab" * 32, NOON)
    barred = bar(state, WEB, NOON)

    assert [one.spiffe_id for one in barred.tokens] == [DB]
    with pytest.raises(UserError, match="lift that first"):
        add_token(barred, "d" * 40, WEB, [], NOON + HOUR, NOON)
    assert [one.spiffe_id for one in lift(barred, WEB).tokens] == [DB]


def test_what_makes_no_sense_is_refused(fresh: AuthorityState) -> None:
    with pytest.raises(UserError, match="is not barred"):
        lift(fresh, WEB)
    with pytest.raises(UserError, match="own identity"):
        bar(fresh, SpiffeId.of_authority("cluster.local"), NOON)
    with pytest.raises(UserError, match="no reason to revoke"):
        bar(fresh, WEB, NOON, reason=x509.ReasonFlags.certificate_hold)
    state = fresh
    for number in range(MAX_BARRED):
        state = bar(state, SpiffeId.parse(f"spiffe://cluster.local/n/{number}"), NOON)
    with pytest.raises(UserError, match="1000 identities are barred already"):
        bar(state, WEB, NOON)
