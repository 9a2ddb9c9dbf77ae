"""The cache of an issuer's keys: nobody waits, nobody is hammered, and old keys are not kept for ever."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.jwks_cache import FetchTimes, KeyCache
from tests.support.tokens import issuer, key_set

TIMES = FetchTimes(refresh=1000.0, least_pause=30.0, first_retry=1.0, timeout=20.0, keep=5000.0)
GOOD = key_set(issuer("ES256").named("a"))
NEWER = key_set(issuer("ES256").named("b"))


def fetched(now: float = 0.0) -> KeyCache:
    cache = KeyCache(TIMES, now)
    cache.started(now)
    assert cache.fetched(GOOD, now, 0.0)
    return cache


def kids(cache: KeyCache, now: float) -> list[str | None] | None:
    keys = cache.keys(now)
    return None if keys is None else [key.kid for key in keys.keys]


class TestFetching:
    def test_the_first_fetch_is_due_at_once_and_until_it_is_back_there_are_no_keys(self) -> None:
        cache = KeyCache(TIMES, 7.0)

        assert cache.due == 7.0
        assert cache.keys(7.0) is None

    def test_while_one_is_under_way_no_other_is_due(self) -> None:
        cache = KeyCache(TIMES, 0.0)
        cache.started(0.0)

        assert cache.due == 20.0

    def test_what_was_fetched_is_used_and_fetched_again_in_time(self) -> None:
        cache = fetched()

        assert kids(cache, 0.0) == ["a"]
        assert cache.due == 1000.0
        assert cache.problem is None

    def test_age_is_counted_from_the_fetch(self) -> None:
        cache = fetched(100_000.0)

        assert kids(cache, 104_999.0) == ["a"]
        assert cache.keys(105_000.0) is None

    def test_new_keys_take_the_place_of_the_old(self) -> None:
        cache = fetched()
        assert cache.fetched(NEWER, 1000.0, 0.0)

        assert kids(cache, 1000.0) == ["b"]

    def test_sidecars_that_started_together_do_not_fetch_together(self) -> None:
        dues = []
        for random in (0.0, 0.5, 0.999):
            cache = KeyCache(TIMES, 0.0)
            cache.fetched(GOOD, 0.0, random)
            dues.append(cache.due)

        assert dues == pytest.approx([1000.0, 950.0, 900.1])

    def test_nor_do_they_ask_again_together(self) -> None:
        dues = []
        for random in (0.0, 0.5):
            cache = KeyCache(TIMES, 0.0)
            cache.failed("away", 100.0, random)
            dues.append(cache.due)

        assert dues == pytest.approx([101.0, 100.95])


class TestFailing:
    def test_old_keys_serve_while_the_issuer_is_away_but_not_for_ever(self) -> None:
        cache = fetched()
        cache.failed("connection refused", 1000.0, 0.0)

        assert kids(cache, 4999.0) == ["a"]
        assert cache.keys(5000.0) is None
        assert cache.problem == "connection refused"

    def test_it_is_asked_again_after_pauses_that_double_up_to_the_usual(self) -> None:
        cache = KeyCache(TIMES, 0.0)
        pauses = []
        for _ in range(1100):
            cache.failed("away", 0.0, 0.0)
            pauses.append(cache.due)

        assert pauses[:12] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]
        assert pauses[-1] == 1000

    @pytest.mark.parametrize(
        "body", [b"", b"<html>login</html>", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}']
    )
    def test_an_answer_of_no_use_is_a_failure_and_the_keys_stay(self, body: bytes) -> None:
        cache = fetched()

        assert not cache.fetched(body, 1000.0, 0.0)

        assert kids(cache, 1000.0) == ["a"]
        assert cache.problem
        assert cache.due == 1001.0

    def test_after_a_success_the_pauses_begin_anew(self) -> None:
        cache = KeyCache(TIMES, 0.0)
        for _ in range(5):
            cache.failed("away", 0.0, 0.0)
        cache.fetched(GOOD, 0.0, 0.0)
        cache.failed("away", 0.0, 0.0)

        assert cache.due == 1.0


class TestUnknownKeys:
    def test_an_unknown_key_makes_the_next_fetch_due(self) -> None:
        cache = fetched()
        cache.unknown_key(500.0)

        assert cache.due == 500.0

    def test_but_not_sooner_than_is_decent(self) -> None:
        cache = fetched()
        cache.unknown_key(1.0)

        assert cache.due == 30.0

    def test_a_fetch_that_is_under_way_is_not_doubled(self) -> None:
        cache = fetched()
        cache.unknown_key(500.0)
        cache.started(500.0)
        cache.unknown_key(500.1)

        assert cache.due == 520.0

    def test_while_fetching_fails_the_pauses_hold(self) -> None:
        cache = fetched()
        for now in (1000.0, 1001.0, 1003.0, 1007.0, 1015.0, 1031.0):
            cache.failed("away", now, 0.0)
        cache.unknown_key(1032.0)

        assert cache.due == 1031.0 + 32.0


class Stranger(RuleBasedStateMachine):
    """Whatever tokens come and however the issuer answers: fetches are rare, and keys are those of a good answer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.cache = KeyCache(TIMES, self.now)
        self.starts: list[float] = []
        self.good_at: float | None = None
        self.failed = 0
        self.pending = False

    @rule(step=st.floats(0, 40))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(times=st.integers(1, 20))
    def tokens_with_invented_keys(self, times: int) -> None:
        for _ in range(times):
            self.cache.unknown_key(self.now)

    @rule()
    def the_owner_looks(self) -> None:
        if self.now >= self.cache.due:
            pause = self.now - self.starts[-1] if self.starts else 1e9
            assert pause >= (0.9 if self.failed else TIMES.timeout)
            self.cache.started(self.now)
            self.starts.append(self.now)
            self.pending = True

    @rule(answer=st.sampled_from(["good", "bad", "error"]), random=st.floats(0, 1, exclude_max=True))
    def the_issuer_answers(self, answer: str, random: float) -> None:
        if not self.pending:
            return
        self.pending = False
        self.failed += 1
        if answer == "good":
            assert self.cache.fetched(GOOD, self.now, random)
            self.good_at, self.failed = self.now, 0
        elif answer == "bad":
            assert not self.cache.fetched(b"?", self.now, random)
        else:
            self.cache.failed("away", self.now, random)

    @invariant()
    def keys_are_there_as_long_as_the_last_good_answer_is_not_too_old(self) -> None:
        wanted = self.good_at is not None and self.now - self.good_at < TIMES.keep
        assert (self.cache.keys(self.now) is not None) == wanted

    @invariant()
    def the_next_fetch_is_never_further_than_the_usual_time(self) -> None:
        assert self.cache.due <= self.now + TIMES.refresh


TestStranger = Stranger.TestCase
TestStranger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("name", ["refresh", "least_pause", "first_retry", "timeout", "keep"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        FetchTimes(**{name: value})


def test_keys_must_be_kept_at_least_until_they_are_fetched_again() -> None:
    with pytest.raises(ValueError, match="keep"):
        FetchTimes(refresh=10.0, keep=9.0)
    assert FetchTimes(refresh=10.0, keep=10.0)


def test_by_default_keys_are_fetched_as_often_as_istio_does_and_kept_for_a_day() -> None:
    assert (FetchTimes().refresh, FetchTimes().keep) == (20 * 60, 24 * 60 * 60)
