"""What is remembered of the addresses of host names."""

from __future__ import annotations

from proxy.peers.names import FORGOTTEN_AFTER, MAX_ADDRESSES, NameBook


def test_an_address_that_is_gone_is_kept_for_a_while():
    book = NameBook()
    book.found("a", ["10.0.0.2", "10.0.0.1"], 0.0)
    book.found("a", ["10.0.0.3"], 100.0)
    assert book.addresses == {"a": ("10.0.0.1", "10.0.0.2", "10.0.0.3")}
    book.found("a", (), FORGOTTEN_AFTER)
    assert book.addresses == {"a": ("10.0.0.3",)}


def test_the_addresses_seen_last_are_the_ones_that_stay():
    book = NameBook()
    book.found("a", ["10.0.0.1"], 0.0)
    book.found("a", [f"10.1.{number // 256}.{number % 256}" for number in range(MAX_ADDRESSES)], 1.0)
    assert len(book.addresses["a"]) == MAX_ADDRESSES
    assert "10.0.0.1" not in book.addresses["a"]


def test_names_that_nobody_asks_for_any_more_are_forgotten():
    book = NameBook()
    book.found("a", ["10.0.0.1"], 0.0)
    book.found("b", ["10.0.0.2"], 0.0)
    book.keep_only(["b", "c"])
    assert book.addresses == {"b": ("10.0.0.2",)}


def test_an_address_that_is_remembered_is_not_among_the_latest():
    book = NameBook()
    book.found("a", ["10.0.0.2", "10.0.0.1"], 0.0)
    assert book.latest == {"a": ("10.0.0.1", "10.0.0.2")}
    book.found("a", ["10.0.0.4", "10.0.0.2"], 5.0)
    assert book.latest == {"a": ("10.0.0.2", "10.0.0.4")}


def test_while_nobody_can_say_a_names_addresses_the_last_answer_is_the_latest_until_it_is_forgotten():
    book = NameBook()
    book.found("a", ["10.0.0.1"], 0.0)
    book.found("a", ["10.0.0.2"], 5.0)
    book.found("a", (), 10.0)
    assert book.latest == {"a": ("10.0.0.2",)}
    book.found("a", (), 5.0 + FORGOTTEN_AFTER)
    assert book.latest == {"a": ()}


def test_an_answer_says_whether_it_was_another_than_before():
    book = NameBook()
    assert book.found("a", ["10.0.0.1", "10.0.0.2"], 0.0)
    assert not book.found("a", ["10.0.0.2", "10.0.0.1"], 5.0)
    assert book.found("a", ["10.0.0.2"], 10.0)
    assert not book.found("a", (), 15.0)
    assert book.found("a", ["10.0.0.2"], 5.0 + FORGOTTEN_AFTER)
