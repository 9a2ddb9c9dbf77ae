"""No peer takes every place that there is."""

from __future__ import annotations

from proxy.tunnels.shares import Shares


def test_one_peer_has_three_quarters_and_others_find_a_place():
    shares = Shares(8)
    assert [shares.take("greedy") for _ in range(8)] == [True] * 6 + [False] * 2
    assert shares.take("modest")


def test_a_place_that_is_given_back_can_be_taken_again_and_nothing_is_remembered_of_who_has_none():
    shares = Shares(2)
    assert shares.take("a")
    assert not shares.take("a")
    shares.give_back("a")
    assert not shares._taken
    assert shares.take("a")
