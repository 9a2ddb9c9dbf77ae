"""What the connections to one entry share."""

from __future__ import annotations

import functools
import itertools
import logging

import pytest
from prometheus_client import CollectorRegistry

from proxy.peers.entries import Balancing, Ejection, PeerEndpoint, Retrying
from proxy.reasons import Flag, Refused
from tests.proxy.peers.groups import A, B, C, Clock, entry, group_of


def chosen(group, count):
    return [group.choose().address for _ in range(count)]


def test_round_robin_gives_each_its_turn():
    assert chosen(group_of(A, B, C), 6) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"] * 2


def test_a_weight_is_a_share():
    group = group_of(A, PeerEndpoint("10.0.0.9", None, 3))
    assert sorted(chosen(group, 8)) == ["10.0.0.1"] * 2 + ["10.0.0.9"] * 6


def test_what_was_put_back_is_the_next_ones():
    group = group_of(A, B)
    first = group.choose()
    group.put_back(first)
    assert group.choose() is first
    assert group.choose().address == "10.0.0.2"


def test_what_is_put_back_does_not_grow():
    group = group_of(A)
    member = group.choose()
    for _ in range(100):
        group.put_back(member)
    assert len(group._put_back) == 1


@pytest.mark.parametrize("balancing", list(Balancing))
def test_another_endpoint_than_those_tried_is_chosen(balancing):
    numbers = itertools.cycle(number / 17 for number in range(17))
    group = group_of(A, B, C, balancing=balancing, random=lambda: next(numbers))
    for _ in range(20):
        tried = []
        for _ in range(3):
            tried.append(group.choose(tried))
        assert len(set(tried)) == 3
        assert group.choose(tried) in tried  # there is no other


def test_an_endpoint_that_keeps_failing_is_left_out_and_comes_back(caplog):
    caplog.set_level(logging.INFO, "qbitel.proxy")
    clock = Clock()
    group = group_of(A, B, clock=clock)
    bad = group.choose()
    for _ in range(2):
        group.failed(bad, 0.1, "connection refused")
    assert set(chosen(group, 4)) == {"10.0.0.2"}
    assert "10.0.0.1 of orders is left out for a while (1 of 2 endpoints are)" in caplog.text
    assert "connection refused" in caplog.text
    clock.time += 29
    group.tend()
    assert set(chosen(group, 4)) == {"10.0.0.2"}
    clock.time += 11
    group.tend()
    assert set(chosen(group, 4)) == {"10.0.0.1", "10.0.0.2"}
    assert "10.0.0.1 of orders is used again" in caplog.text


def test_how_many_are_left_out_is_shown_until_the_entry_is_gone():
    registry = CollectorRegistry()
    shown = functools.partial(registry.get_sample_value, "qbitel_endpoints_ejected", {"peer": "orders"})
    group = group_of(A, B, registry=registry)
    for member in (group.choose(), group.choose()):
        group.failed(member, 0.1, "")
        group.failed(member, 0.1, "")
    assert shown() == 2
    group.use((B,))
    assert shown() == 1
    group.close()
    assert shown() == 0


def test_a_success_in_between_forgives():
    group = group_of(A, B)
    member = group.choose()
    group.failed(member, 0.1, "")
    group.succeeded(member, 0.1)
    group.failed(member, 0.1, "")
    assert set(chosen(group, 4)) == {"10.0.0.1", "10.0.0.2"}


def test_where_all_are_left_out_it_is_said():
    group = group_of(A)
    member = group.choose()
    for _ in range(2):
        group.failed(member, 0.1, "")
    with pytest.raises(Refused, match="all of the 1 that are known are left out") as refused:
        group.choose()
    assert refused.value.verdict.flag is Flag.CIRCUIT_OPEN
    assert refused.value.verdict.reason == "no_endpoint"


def test_by_default_half_of_the_endpoints_stay_whatever_they_do():
    group = group_of(A, B, ejection=Ejection(failures=1))
    for member in (group.choose(), group.choose()):
        group.failed(member, 0.1, "")
    assert len(set(chosen(group, 4))) == 1


def test_latency_prefers_the_endpoint_that_answers_earlier():
    numbers = itertools.cycle(number / 17 for number in range(17))
    group = group_of(A, B, balancing=Balancing.LATENCY, random=lambda: next(numbers))
    fast = group.choose()
    slow = group.choose([fast])
    group.succeeded(fast, 0.001)
    group.succeeded(slow, 1.0)
    assert {group.choose() for _ in range(17)} == {fast}


def test_an_endpoint_that_refuses_at_once_is_not_taken_for_the_fastest():
    numbers = itertools.cycle(number / 17 for number in range(17))
    group = group_of(A, B, balancing=Balancing.LATENCY, ejection=None, random=lambda: next(numbers))
    refusing = group.choose()
    answering = group.choose([refusing])
    group.failed(refusing, 0.0001, "connection refused")
    group.succeeded(answering, 0.05)
    assert {group.choose() for _ in range(17)} == {answering}


def test_as_many_connections_as_allowed_are_open_at_one_time():
    group = group_of(A, max_connections=2)
    group.enter()
    group.enter()
    with pytest.raises(
        Refused, match="to orders are open as maxConnections of the peers document allows: 2"
    ) as refused:
        group.enter()
    assert "maxConnections of the peers document" in str(refused.value)
    assert refused.value.verdict.flag is Flag.CIRCUIT_OPEN
    assert refused.value.verdict.reason == "destination_connection_limit"
    group.leave()
    group.enter()


def test_as_many_as_allowed_wait_at_one_time():
    group = group_of(A, max_pending=1)
    group.begin_connecting()
    with pytest.raises(Refused) as refused:
        group.begin_connecting()
    assert refused.value.verdict.reason == "destination_pending_limit"
    group.end_connecting()
    group.begin_connecting()


def test_a_limit_that_a_rule_sets_is_told_with_the_rule():
    rule = "DestinationRule shop/orders"
    group = group_of(A, max_connections=1, max_pending=1, rule=rule)
    group.enter()
    group.begin_connecting()
    with pytest.raises(Refused, match=f"as maxConnections of {rule} allows"):
        group.enter()
    with pytest.raises(Refused, match=f"as http1MaxPendingRequests of {rule} allows"):
        group.begin_connecting()
    own = group_of(A, max_connections=1, rule=rule, said=frozenset({"maxConnections"}))
    own.enter()
    with pytest.raises(Refused, match="maxConnections of the peers document"):
        own.enter()


def test_where_few_are_left_none_is_left_out_any_more():
    group = group_of(A, B, ejection=Ejection(failures=1, most_percent=100, panic_percent=60))
    group.failed(group.choose(), 0.1, "refused")
    assert {group.choose().address for _ in range(4)} == {A.host, B.host}


def test_retries_are_made_within_attempts_and_budget():
    group = group_of(A, B, retrying=Retrying(attempts=2, ratio=0.5, min_per_second=0.0))
    for _ in range(4):
        group.enter()
    assert group.may_retry(1)
    assert not group.may_retry(3)  # two retries were the third attempt
    assert group.may_retry(2)
    assert not group.may_retry(1)  # half of four connections is two


def test_without_retries_there_are_none():
    assert not group_of(A, B).may_retry(1)


def test_a_new_document_keeps_what_is_known_of_those_that_stay():
    group = group_of(A, B, max_connections=1)
    group.enter()
    kept = group.choose()
    kept.started()
    for _ in range(2):
        group.failed(kept, 0.1, "")
    group.update(entry(A, C, max_connections=2))
    group.use((A, C))
    assert set(chosen(group, 4)) == {"10.0.0.3"}  # A is still left out, B is gone and C is new
    assert kept.active == 1
    group.enter()
    with pytest.raises(Refused):
        group.enter()


def test_new_endpoints_get_connections_at_once():
    group = group_of(A)
    group.use((A, B))
    assert set(chosen(group, 4)) == {"10.0.0.1", "10.0.0.2"}


def test_an_endpoint_that_is_gone_is_not_used_though_it_was_put_back():
    group = group_of(A, B)
    first = group.choose()
    group.put_back(first)
    group.use((B,))
    assert chosen(group, 2) == ["10.0.0.2"] * 2
    assert group.spec_of(first) is None
    group.failed(first, 0.1, "")  # what began before says nothing now


def test_another_way_of_balancing_is_taken_up():
    group = group_of(A, B)
    group.update(entry(A, B, balancing=Balancing.LEAST_CONNECTIONS))
    busy = group.choose()
    busy.started()
    assert group.choose() is not busy
