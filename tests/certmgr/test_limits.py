"""What is bounded stays bounded."""

from __future__ import annotations

import pytest

from certmgr.limits import Gate, TokenBucket
from certmgr.proofs import Reason, Refused


def test_a_gate_lets_so_many_in_and_says_when_to_come_again():
    gate = Gate(2, "proofs")
    with gate.pass_through(), gate.pass_through():
        with pytest.raises(Refused, match="2 proofs are under way") as refused, gate.pass_through():
            pytest.fail("a third came in")
        assert refused.value.reason is Reason.TOO_MANY
        assert refused.value.retry_after == 2
        assert gate.inside == 2
    with gate.pass_through():
        assert gate.inside == 1


def test_a_gate_is_open_again_after_one_inside_failed():
    gate = Gate(1, "proofs")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.pass_through():
            raise ZeroDivisionError
    assert gate.inside == 0


def test_a_bucket_gives_a_burst_and_then_its_rate():
    now = 0.0
    bucket = TokenBucket(rate=2, burst=3, monotonic=lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 1000.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
