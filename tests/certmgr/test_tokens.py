"""Bootstrap tokens: for one key, until they end, and for no identity that is not a workload's of ours."""

from __future__ import annotations

import datetime

import pytest

from certmgr.founding import new_state
from certmgr.proofs import Reason, Refused
from certmgr.state import AuthorityState, forget_ended
from certmgr.tokens import MAX_TOKEN_VALIDITY, REDEEM_AGAIN, add_token, find_token, spend_token
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
SECOND = datetime.timedelta(seconds=1)
WEB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")
TOKEN = "k" * 43
KEY, OTHER_KEY = "1f" * 32, "2e" * 32


@pytest.fixture(scope="module")
def fresh() -> AuthorityState:
    return new_state("CN=Example", "cluster.local", NOON)


@pytest.fixture(scope="module")
def waiting(fresh: AuthorityState) -> AuthorityState:
    return add_token(fresh, TOKEN, WEB, ["web.shop"], NOON + HOUR, NOON)


def redeem(state: AuthorityState, token: str, now: datetime.datetime, key: str = KEY) -> AuthorityState:
    return spend_token(state, find_token(state, token, now), key, now)


def refused(state: AuthorityState, token: str, now: datetime.datetime, key: str = KEY) -> str:
    with pytest.raises(Refused) as caught:
        redeem(state, token, now, key)
    assert caught.value.reason is Reason.BOOTSTRAP_REFUSED
    return str(caught.value)


def test_a_token_proves_its_identity_for_one_key(waiting: AuthorityState) -> None:
    token = find_token(waiting, TOKEN, NOON)
    used = spend_token(waiting, token, KEY, NOON)

    assert (token.spiffe_id, token.dns_names) == (WEB, ("web.shop",))
    assert used != waiting
    assert refused(used, TOKEN, NOON, OTHER_KEY) == refused(waiting, "m" * 43, NOON)


def test_a_token_may_be_redeemed_again_for_the_same_key_for_some_minutes(waiting: AuthorityState) -> None:
    used = redeem(waiting, TOKEN, NOON)

    assert redeem(used, TOKEN, NOON + SECOND) is used
    assert redeem(used, TOKEN, NOON + REDEEM_AGAIN) is used  # the time is not counted anew each time
    refused(used, TOKEN, NOON + REDEEM_AGAIN + SECOND)
    forgotten = forget_ended(used, NOON + REDEEM_AGAIN + SECOND)
    assert forgotten is not None
    assert forgotten.tokens == ()


def test_a_token_that_was_spent_ends_when_it_would_have_ended(waiting: AuthorityState) -> None:
    used = redeem(waiting, TOKEN, NOON + HOUR - SECOND)

    assert redeem(used, TOKEN, NOON + HOUR) is used
    refused(used, TOKEN, NOON + HOUR + SECOND)


def test_a_token_is_good_to_its_last_second(waiting: AuthorityState) -> None:
    redeem(waiting, TOKEN, NOON + HOUR)
    refused(waiting, TOKEN, NOON + HOUR + SECOND)


@pytest.mark.parametrize("token", ["", "k" * 42, "k" * 44, TOKEN.upper(), "\ud800" * 43, "é" * 43])
def test_no_other_token_proves_anything_and_none_is_repeated(waiting: AuthorityState, token: str) -> None:
    said = refused(waiting, token, NOON)
    assert not token or token not in said


def test_the_state_holds_no_token(waiting: AuthorityState) -> None:
    assert TOKEN not in str(waiting.tokens)


def test_other_tokens_stay_when_one_is_used_and_ended_ones_go(waiting: AuthorityState) -> None:
    both = add_token(waiting, "m" * 43, WEB, [], NOON + 2 * HOUR, NOON)
    left = redeem(both, TOKEN, NOON)
    assert [(one.until, one.key) for one in left.tokens] == [(NOON + REDEEM_AGAIN, KEY), (NOON + 2 * HOUR, "")]
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
