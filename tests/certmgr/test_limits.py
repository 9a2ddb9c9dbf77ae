"""What is bounded stays bounded, and who pays for too many is who was of least use."""

from __future__ import annotations

import pytest

from certmgr.limits import ConnectionTable, Gate, TokenBucket
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


class Connections:
    """A table whose connections are letters; `closed` are those that had to go."""

    def __init__(self, most: int, most_per_source: int) -> None:
        self.table = ConnectionTable(most, most_per_source)
        self.closed: list[str] = []

    def open(self, names: str, source: str) -> None:
        for name in names:
            self.table.add(name, source, lambda name=name: self.closed.append(name))


def test_the_connection_that_was_silent_for_the_longest_goes():
    connections = Connections(3, 3)
    connections.open("a", "1")
    connections.open("b", "2")
    connections.open("c", "3")
    connections.table.heard("a")
    connections.open("d", "4")
    connections.open("e", "5")
    assert connections.closed == ["b", "c"]
    assert len(connections.table) == 3
    assert connections.table.evicted == 2


def test_a_source_with_too_many_loses_its_own():
    connections = Connections(10, 2)
    connections.open("x", "victim")
    connections.open("abc", "greedy")
    connections.table.heard("b")
    connections.open("d", "greedy")
    assert connections.closed == ["a", "c"]


def test_what_is_gone_makes_room_and_is_not_closed_again():
    connections = Connections(2, 2)
    connections.open("ab", "1")
    connections.table.remove("a")
    connections.table.remove("a")
    connections.table.heard("a")
    connections.open("c", "1")
    assert connections.closed == []
    assert len(connections.table) == 2
    connections.table.remove("b")
    connections.table.remove("c")
    assert len(connections.table) == 0
    assert connections.table._closers == {}
