"""Connections per source and per workload: how fast, how many at once, and that a place is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.token_bucket import RateLimit
from proxy.policy.config import PolicyConfig
from proxy.policy.inbound_limits import WorkloadConnections, WorkloadRate
from proxy.policy.limits import ConnectionLimits
from proxy.reasons import Flag, Refused


def refused(limits: ConnectionLimits, source: str = "a", port: int = 80, now: float = 0.0) -> str:
    with pytest.raises(Refused) as caught:
        limits.enter(source, port, now)
    verdict = caught.value.verdict
    expected = Flag.RATE_LIMITED if verdict.reason == "rate_limited" else Flag.CIRCUIT_OPEN
    assert verdict.flag is expected
    assert verdict.refused
    return f"{verdict.reason}: {verdict.message}"


def test_a_source_opens_its_burst_at_once_and_then_at_its_rate():
    limits = ConnectionLimits(PolicyConfig(connection_rate=2, connection_burst=3))
    for _ in range(3):
        limits.enter("a", 80, 0.0)
    assert "a opens more than 2 connections per second" in refused(limits)
    limits.enter("a", 80, 0.5)
    refused(limits, now=0.5)


def test_without_a_burst_a_second_s_worth_comes_at_once():
    limits = ConnectionLimits(PolicyConfig(connection_rate=4))
    for _ in range(4):
        limits.enter("a", 80, 0.0)
    refused(limits)


def test_one_source_does_not_use_up_what_another_may_open():
    limits = ConnectionLimits(PolicyConfig(connection_rate=1, connection_burst=1))
    limits.enter("a", 80, 0.0)
    refused(limits)
    limits.enter("b", 80, 0.0)


def test_a_source_holds_so_many_and_gets_a_place_when_one_ends():
    limits = ConnectionLimits(PolicyConfig(max_connections_per_peer=2))
    place = limits.enter("a", 80, 0.0)
    limits.enter("a", 81, 0.0)
    assert refused(limits).startswith("peer_connection_limit: a has 2")
    limits.enter("b", 80, 0.0)
    limits.leave(place)
    limits.enter("a", 80, 0.0)


def test_a_workload_holds_so_many_at_a_port_whoever_they_are():
    limits = ConnectionLimits(PolicyConfig(max_connections_per_peer=100))
    limits.update((), (WorkloadConnections("DestinationRule shop/web", 80, 2),))
    places = [limits.enter(source, 80, 0.0) for source in "ab"]
    assert "DestinationRule shop/web" in refused(limits, "c")
    limits.enter("c", 81, 0.0)
    limits.leave(places[0])
    limits.enter("c", 80, 0.0)


def test_a_limit_without_a_port_holds_at_each_of_them():
    limits = ConnectionLimits(PolicyConfig())
    limits.update((), (WorkloadConnections("x", None, 1),))
    limits.enter("a", 80, 0.0)
    limits.enter("a", 81, 0.0)
    refused(limits, port=80)
    refused(limits, port=81)


def test_a_rate_of_the_workload_is_for_all_sources_together_and_its_port_alone():
    limits = ConnectionLimits(PolicyConfig())
    limits.update((WorkloadRate("EnvoyFilter shop/limit", 80, RateLimit(1)),), ())
    limits.enter("a", 80, 0.0)
    assert "EnvoyFilter shop/limit" in refused(limits, "b")
    limits.enter("b", 81, 0.0)
    limits.enter("b", 80, 1.0)


def test_a_reload_with_the_same_limit_is_no_refill_and_another_limit_is_a_new_bucket():
    limits = ConnectionLimits(PolicyConfig())
    rate = WorkloadRate("x", None, RateLimit(1))
    limits.update((rate,), ())
    limits.enter("a", 80, 0.0)
    limits.update((WorkloadRate("x", None, RateLimit(1)),), ())
    refused(limits)
    limits.update((WorkloadRate("x", None, RateLimit(2)),), ())
    limits.enter("a", 80, 0.0)


def test_a_lower_limit_cuts_off_nobody_and_holds_for_the_next():
    limits = ConnectionLimits(PolicyConfig())
    places = [limits.enter("a", 80, 0.0) for _ in range(3)]
    limits.update((), (WorkloadConnections("x", 80, 1),))
    refused(limits)
    for place in places:
        limits.leave(place)
    limits.enter("a", 80, 0.0)


def test_whoever_is_refused_for_holding_too_many_has_not_used_up_its_rate():
    limits = ConnectionLimits(PolicyConfig(connection_rate=1, connection_burst=2, max_connections_per_peer=1))
    place = limits.enter("a", 80, 0.0)
    for _ in range(5):
        refused(limits)
    limits.leave(place)
    limits.enter("a", 80, 0.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(80, 82), st.booleans()), max_size=60))
def test_nothing_is_remembered_of_whoever_is_gone(steps):
    limits = ConnectionLimits(PolicyConfig(max_connections_per_peer=3))
    held = []
    for source, port, leaves in steps:
        if leaves and held:
            limits.leave(held.pop())
            continue
        try:
            held.append(limits.enter(source, port, 0.0))
        except Refused:
            assert sum(place.source == source for place in held) == 3
    for place in held:
        limits.leave(place)
    assert (limits._by_source, limits._by_port) == ({}, {})
