"""Who pays for too many connections is who was of least use."""

from __future__ import annotations

from httpd.connection_table import ConnectionTable


class Connections:
    """A table whose connections are letters; `closed` are those that had to go."""

    def __init__(self, most: int, most_per_source: int | None = None) -> None:
        self.table = ConnectionTable(most, most_per_source)
        self.closed: list[str] = []

    def open(self, names: str, source: str) -> None:
        for name in names:
            self.table.add(name, source, lambda name=name: self.closed.append(name))  # type: ignore[misc]


def test_the_connection_that_was_silent_for_the_longest_goes() -> None:
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


def test_a_source_with_too_many_loses_its_own() -> None:
    connections = Connections(10, 2)
    connections.open("x", "victim")
    connections.open("abc", "greedy")
    connections.table.heard("b")
    connections.open("d", "greedy")
    assert connections.closed == ["a", "c"]


def test_without_a_bound_of_its_own_a_source_may_have_all() -> None:
    connections = Connections(3)
    connections.open("abc", "one")
    assert connections.closed == []
    connections.open("d", "other")
    assert connections.closed == ["a"]


def test_what_is_gone_makes_room_and_is_not_closed_again() -> None:
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
