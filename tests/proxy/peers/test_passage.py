"""One connection on its way: what it holds, gives back, and tells of the endpoint that it used."""

from __future__ import annotations

import pytest

from proxy.peers.entries import Ejection
from proxy.peers.passage import Passage
from proxy.reasons import Refused
from proxy.relay import End, Outcome
from proxy.tunnels.frames import ResetCode
from proxy.tunnels.stream import StreamReset
from tests.proxy.peers.groups import A, B, Clock, group_of


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def group(clock):
    return group_of(A, B, clock=clock, max_connections=1, ejection=Ejection(failures=1, most_percent=100))


def used(group):
    passage = Passage(group)
    member = group.choose()
    passage.uses(member)
    return passage, member


def is_left_out(group, member) -> bool:
    return member not in {group.choose() for _ in range(4)}


def test_it_holds_a_place_and_an_endpoint_until_it_leaves(group):
    passage, member = used(group)
    assert member.active == 1
    with pytest.raises(Refused):
        Passage(group)
    passage.leave()
    assert member.active == 0
    Passage(group)


def test_another_attempt_lets_go_of_the_endpoint_before(group):
    passage, first = used(group)
    passage.failed("refused")
    second = group.choose()
    passage.uses(second)
    assert (first.active, second.active) == (0, 1)
    assert is_left_out(group, first)


def test_what_the_other_side_needs_to_answer_is_measured(group, clock):
    passage, member = used(group)
    clock.time += 0.25
    passage.succeeded()
    assert member.latency == 0.25
    clock.time += 100
    passage.succeeded()  # said twice, counted once
    assert member.latency == 0.25


@pytest.mark.parametrize("code", [ResetCode.CONNECT_FAILED, ResetCode.CONNECT_TIMEOUT, ResetCode.DRAINED])
def test_an_application_that_does_not_answer_there_is_the_endpoints_fault(group, code):
    passage, member = used(group)
    passage.ended(Outcome(End.REFUSED, 0, 0, StreamReset(code)))
    assert is_left_out(group, member)
    assert member.active == 0


@pytest.mark.parametrize("end", [End.RESET_BY_PEER, End.PEER_SILENT, End.TLS_ERROR])
def test_a_tunnel_that_breaks_before_the_answer_is_the_endpoints_fault(group, end):
    passage, member = used(group)
    passage.ended(Outcome(end, 0, 0))
    assert is_left_out(group, member)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(End.REFUSED, 0, 0, StreamReset(ResetCode.DENIED)),
        Outcome(End.REFUSED, 0, 0, StreamReset(ResetCode.RATE_LIMITED)),
        Outcome(End.RESET_BY_PEER, 0, 0, StreamReset(ResetCode.RESET_BY_APPLICATION)),
        Outcome(End.RESET_BY_APPLICATION, 0, 0),
        Outcome(End.CLOSED, 0, 0),
    ],
)
def test_what_is_no_fault_of_the_endpoint_is_not_held_against_it(group, outcome):
    passage, member = used(group)
    passage.ended(outcome)
    assert not is_left_out(group, member)


def test_what_happens_after_the_answer_says_nothing_of_the_endpoint(group):
    passage, member = used(group)
    passage.succeeded()
    passage.ended(Outcome(End.RESET_BY_PEER, 0, 0))
    assert not is_left_out(group, member)
