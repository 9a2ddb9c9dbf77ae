"""Bootstrap tokens: once, until they end, and for no identity that is not a workload's of ours."""

from __future__ import annotations

import datetime

import pytest

from certmgr.founding import new_state
from certmgr.proofs import Reason, Refused
from certmgr.state import AuthorityState
from certmgr.tokens import MAX_TOKEN_VALIDITY, add_token, redeem_token
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
SECOND = datetime.timedelta(seconds=1)
WEB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")
TOKEN = "k" * 43


@pytest.fixture(scope="module")
def fresh() -> AuthorityState:
    return new_state("CN=Example", "cluster.local", NOON)


@pytest.fixture(scope="module")
def waiting(fresh: AuthorityState) -> AuthorityState:
    return add_token(fresh, TOKEN, WEB, ["web.shop"], NOON + HOUR, NOON)


def test_a_token_proves_its_identity_once(waiting: AuthorityState) -> None:
    used, token = redeem_token(waiting, TOKEN, NOON)

    assert (token.spiffe_id, token.dns_names) == (WEB, ("web.shop",))
    assert used.tokens == ()
    with pytest.raises(Refused) as caught:
        redeem_token(used, TOKEN, NOON)
    assert caught.value.reason is Reason.BOOTSTRAP_REFUSED


def test_a_token_is_good_to_its_last_second(waiting: AuthorityState) -> None:
    redeem_token(waiting, TOKEN, NOON + HOUR)
    with pytest.raises(Refused):
        redeem_token(waiting, TOKEN, NOON + HOUR + SECOND)


@pytest.mark.parametrize("token", ["", "k" * 42, "k" * 44, TOKEN.upper(), "\ud800" * 43, "é" * 43])
def test_no_other_token_proves_anything_and_none_is_repeated(waiting: AuthorityState, token: str) -> None:
    with pytest.raises(Refused) as caught:
        redeem_token(waiting, token, NOON)
    assert not token or token not in str(caught.value)


def test_the_state_holds_no_token(waiting: AuthorityState) -> None:
    assert TOKEN not in str(waiting.tokens)


def test_other_tokens_stay_when_one_is_used_and_ended_ones_go(waiting: AuthorityState) -> None:
    both = add_token(waiting, "m" * 43, WEB, [], NOON + 2 * HOUR, NOON)
    left, _ = redeem_token(both, TOKEN, NOON)
    assert [one.until for one in left.tokens] == [NOON + 2 * HOUR]
    later = add_token(both, "n" * 43, WEB, [], NOON + 3 * HOUR, NOON + HOUR + SECOND)
    assert [one.until for one in later.tokens] == [NOON + 2 * HOUR, NOON + 3 * HOUR]


def test_the_authority_s_own_identity_and_those_of_others_get_no_token(fresh: AuthorityState) -> None:
    with pytest.raises(UserError, match="the authority's own identity"):
        add_token(fresh, TOKEN, SpiffeId.of_authority("cluster.local"), [], NOON + HOUR, NOON)
    with pytest.raises(UserError, match="not of this trust domain"):
        add_token(fresh, TOKEN, SpiffeId.parse("spiffe://elsewhere/ns/shop/sa/web"), [], NOON + HOUR, NOON)


@pytest.mark.parametrize("until", [NOON, NOON - SECOND, NOON + MAX_TOKEN_VALIDITY + SECOND])
def test_a_token_ends_within_a_month_and_not_before_it_begins(fresh: AuthorityState, until: datetime.datetime) -> None:
    with pytest.raises(UserError, match="at most 30 days"):
        add_token(fresh, TOKEN, WEB, [], until, NOON)


def test_a_token_that_is_short_or_known_and_names_that_are_none_are_refused(waiting: AuthorityState) -> None:
    with pytest.raises(UserError, match="easily guessed"):
        add_token(waiting, "k" * 31, WEB, [], NOON + HOUR, NOON)
    with pytest.raises(UserError, match="known already"):
        add_token(waiting, TOKEN, WEB, [], NOON + HOUR, NOON)
    with pytest.raises(UserError, match="no DNS name"):
        add_token(waiting, "m" * 43, WEB, ["*.shop"], NOON + HOUR, NOON)
